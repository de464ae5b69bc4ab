// A parallel loop over workers, on threads that the caller provides, with scratch memory.
#ifndef SASA_TF_NATIVE_CPU_PARALLEL_FOR_H_
#define SASA_TF_NATIVE_CPU_PARALLEL_FOR_H_

#include <atomic>
#include <cstdint>

namespace sasa {

constexpr int64_t kAlignment = 64;  // bytes, of a cache line

inline int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Runs task(context, i) for all i < count, in any order on any threads, and returns when all have
// finished.
struct ParallelFor {
  void (*run)(void* threads, int64_t count, void (*task)(void* context, int64_t index),
              void* context);
  void* threads;
};

// Returns this thread's scratch memory, aligned to kAlignment; null if out of memory.
float* ThreadScratch(int64_t bytes);

// Calls work(worker, scratch) for each worker. Returns null, or an error message.
template <typename Work>
const char* RunWorkers(const ParallelFor& parallel_for, int64_t workers, int64_t scratch_bytes,
                       const Work& work) {
  struct Call {
    const Work& work;
    int64_t scratch_bytes;
    std::atomic<bool> out_of_memory{false};
  } call{work, scratch_bytes};
  parallel_for.run(
      parallel_for.threads, workers,
      [](void* context, int64_t worker) {
        Call& call = *static_cast<Call*>(context);
        if (float* scratch = ThreadScratch(call.scratch_bytes)) {
          call.work(worker, scratch);
        } else {
          call.out_of_memory = true;
        }
      },
      &call);
  return call.out_of_memory ? "out of memory for the scratch of a worker" : nullptr;
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_PARALLEL_FOR_H_
