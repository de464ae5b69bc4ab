// The state of the emulated GPU, which the sources of the emulator share.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_STATE_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_STATE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "scheduler.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(from, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(from, bytes)
#endif

namespace emulation {

struct CpAsyncCopy {
  char* to;
  const void* from;
  int bytes, zeros;
};
using CpAsyncGroup = std::vector<CpAsyncCopy>;

struct Fiber {
  char* stack = nullptr;  // its lowest byte
#ifdef __x86_64__
  void* stack_pointer = nullptr;  // while another fiber runs
#else
  ucontext_t context;
#endif
  void* fake_stack = nullptr;  // of AddressSanitizer
  const WarpCollective* collective = nullptr;
  void* operands = nullptr;
  const SourceLocation* barrier = nullptr;
  SourceLocation last = {};  // where it last waited or copied
  bool exited = false;
  std::deque<CpAsyncGroup> copies;  // the last group is not committed yet
};

struct Warp {
  unsigned runnable = 0, exited = 0;
  struct Waiting {
    unsigned mask, arrived;
    int first;  // lane
  };
  std::vector<Waiting> collectives;
  const SourceLocation* barrier = nullptr;  // that lanes wait at
  int barrier_lane = 0;                     // the first of them
};

struct State {
  Fiber fibers[kMaxThreads], system;
  Warp warps[kMaxThreads / kWarp];
  unsigned live_warps = 0;  // that have runnable lanes
  int current = -1, warp = 0;
  int exited = 0, at_barrier = 0;
  int polls = 0;  // since a warp has executed a collective
  uint64_t random = 0;
  uint64_t switch_mask = 0;  // another warp is chosen if a random number has none of these bits
  void (*thread)(void*) = nullptr;
  void* context = nullptr;
  int shared_bytes = 0;
};
State& GpuState();

// fibers.cc. InitFiber makes `main` the fiber's function.
void InitFiber(Fiber& fiber, void (*main)());
void SwitchFiber(Fiber& from, Fiber& to, bool exits);
// Follows each switch, in the fiber that it led to.
void FinishSwitch(Fiber& fiber);

// shared_memory.cc. Called before a grid, before each CTA, and after the grid.
void PrepareSharedMemory();
void PoisonSharedMemory();
void CheckSharedMemoryBounds();

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_SCHEDULER_STATE_H_
