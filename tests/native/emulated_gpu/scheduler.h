// Runs the CTAs of a kernel on the CPU, one after another. Each thread of a CTA is a fiber with its
// own stack.
//
// A fiber runs until it waits: for the other lanes of its warp, at an instruction that a warp
// executes together (a collective), or for the other threads of its CTA, at a barrier. Which fiber
// runs next is random ($SASA_EMULATION_SEED), and in some CTAs one warp runs as far ahead as it
// can, so that missing barriers are detected. Lanes do not run in lockstep between collectives, but
// every collective orders memory: a missing __syncwarp is detected only if no other collective
// replaces it. Shared memory is NaN in every type until it is written.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_H_

#include <cstddef>
#include <cstdint>

struct uint3 {
  unsigned x, y, z;
};
// Of the current thread. Grids and CTAs have one dimension.
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr char kGpuName[] = "emulated";

constexpr int kWarp = 32, kMaxThreads = 1024;
constexpr int kMaxSharedBytes = 232448;  // of a CTA, as on sm_90

// Where a function was called; the default of its last argument.
struct SourceLocation {
  const char* file;
  int line;
  static SourceLocation Current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

inline int Lane() { return static_cast<int>(threadIdx.x % kWarp); }

// Ends the program with an error message that names the current thread.
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Sets a function that is called when a check or a signal ends the program.
void OnFailure(void (*print)());

// Declares an array as dynamic shared memory. There is one of each name in each source file.
struct DynamicShared {
  explicit DynamicShared(void* first);
};

// Runs `thread(context)` in each thread of each CTA and returns.
void RunGrid(int ctas, int threads, int shared_bytes, void (*thread)(void*), void* context);

// Restarts the random order of threads.
void Seed(uint64_t seed);

// An instruction that the lanes in `mask` execute together. Each lane passes its operands, which
// are also its results. The last lane to arrive calls `act(all)` for all of them, with the operands
// of each lane, and null for the other lanes.
struct WarpCollective {
  const char* name;
  SourceLocation location;
  unsigned mask;
  bool any_location;  // whether lanes may be at different places in the source
  bool full_warp;     // whether it fails if lanes have exited; else exited lanes are ignored
  void (*act)(void* context, void* const* all);
  void* context;
};
void RunCollective(const WarpCollective& collective, void* operands);

template <typename Operands, typename Act>
void RunCollective(const char* name, SourceLocation location, unsigned mask, bool full_warp,
                   Operands& operands, Act act) {
  const auto call = [](void* context, void* const* all) {
    (*static_cast<Act*>(context))(reinterpret_cast<Operands* const*>(all));
  };
  RunCollective({name, location, mask, false, full_warp, call, &act}, &operands);
}

// __syncthreads: waits for the threads of the CTA that have not exited.
void Barrier(SourceLocation location);

// Lets other warps run, in a loop that waits for them.
void Poll(SourceLocation location);

// 32-bit addresses of shared memory. ResolveSmem fails unless `bytes` bytes at `address` lie in the
// CTA's dynamic shared memory and the address is a multiple of `alignment`.
uint32_t SmemAddressOf(const void* pointer);
char* ResolveSmem(const char* name, SourceLocation location, uint32_t address, int bytes,
                  int alignment);

// cp.async: copies `bytes` of `size` bytes and zeros for the rest. The data arrives when the thread
// waits for it; until then its place is NaN.
void StartCpAsync(const char* name, SourceLocation location, uint32_t smem, const void* global,
                  int bytes, int size);
void CommitCpAsyncGroup();
void WaitCpAsyncGroups(int max_pending);

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_H_
