// Runs the thread blocks of a kernel on a processor, one after the other; each thread of a block is
// a fiber with a stack of its own.
//
// A fiber runs until it waits: for the other lanes of its warp, at what a warp does together
// ("meeting"), or for the other threads of its block, at a barrier. Which fiber runs next is random
// ($SASA_EMULATION_SEED), and some blocks let one warp run as far ahead as it can, so that a
// missing barrier shows. Lanes are not in step between meetings, but every meeting orders memory: a
// missing __syncwarp shows only where no other meeting takes its place. Shared memory is NaN in
// every type until something is written there.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_H_

#include <cstddef>
#include <cstdint>

struct uint3 {
  unsigned x, y, z;
};
// Of the thread that runs now; grids and blocks have one axis.
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr char kName[] = "emulated";

constexpr int kWarp = 32, kMostThreads = 1024;
constexpr int kMostSharedBytes = 232448;  // of a block, as sm_90 has them

// Where in the sources a function was called from; the default of its last argument.
struct Site {
  const char* file;
  int line;
  static Site Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

inline int Lane() { return static_cast<int>(threadIdx.x % kWarp); }

// Names the thread that runs now and ends the program.
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Has `print` called when a check or the processor ends the program while a kernel runs.
void WhenFailing(void (*print)());

// Declares an array as dynamic shared memory; there is one of each name in each source file.
struct DynamicShared {
  explicit DynamicShared(void* first);
};

// Runs `thread(context)` in each thread of each block, then returns.
void Run(int blocks, int threads, int shared_bytes, void (*thread)(void*), void* context);

// Starts the random order anew.
void Seed(uint64_t seed);

// What the lanes in `mask` do together. Each has operands, which are also its results; the last one
// to arrive does it for all: `act(all)` with the operands of each lane, null of the others.
struct Meeting {
  const char* name;
  Site site;
  unsigned mask;
  bool anywhere;  // need not be the same place in the sources
  bool whole;     // all 32 lanes have to be there; else those that returned are not waited for
  void (*act)(void* context, void* const* all);
  void* context;
};
void Meet(const Meeting& meeting, void* operands);

template <typename Operands, typename Act>
void Meet(const char* name, Site site, unsigned mask, bool whole, Operands& operands, Act act) {
  const auto call = [](void* context, void* const* all) {
    (*static_cast<Act*>(context))(reinterpret_cast<Operands* const*>(all));
  };
  Meet({name, site, mask, false, whole, call, &act}, &operands);
}

// Waits for the threads of the block that have not returned.
void Barrier(Site site);

// Shared memory by its 32-bit address: `bytes` of them from `address`, which is a multiple of
// `alignment`; fails where the block has none.
uint32_t AddressOf(const void* pointer);
char* SharedAt(const char* name, Site site, uint32_t address, int bytes, int alignment);

// Copies `bytes` of the `size` and zeros for the rest. Copies are under way until the thread waits
// for them; until then, their targets are NaN.
void StartCopy(const char* name, Site site, uint32_t to, const void* from, int bytes, int size);
void CommitCopies();
void AwaitCopies(int most);  // groups that may stay under way

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_H_
