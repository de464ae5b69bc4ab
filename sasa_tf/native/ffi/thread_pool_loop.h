// A parallel loop on XLA's thread pool.
#ifndef SASA_TF_NATIVE_FFI_THREAD_POOL_LOOP_H_
#define SASA_TF_NATIVE_FFI_THREAD_POOL_LOOP_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "cpu/parallel_for.h"
#include "xla/ffi/api/ffi.h"

namespace sasa {

// The calling thread takes part in the loop, and waits only for iterations that other threads have
// begun. So it cannot deadlock in a pool whose threads all wait in such loops.
class ThreadPoolLoop {
 public:
  // A `ParallelFor` that runs on `pool`, which must outlive it.
  static ParallelFor On(xla::ffi::ThreadPool& pool) { return {Run, &pool}; }

  ThreadPoolLoop(int64_t count, void (*task)(void*, int64_t), void* context)
      : count_(count), task_(task), context_(context), unfinished_(count) {}

 private:
  static void Run(void* threads, int64_t count, void (*task)(void*, int64_t), void* context) {
    xla::ffi::ThreadPool& pool = *static_cast<xla::ffi::ThreadPool*>(threads);
    const int64_t helpers = std::min(pool.num_threads(), count) - 1;
    auto loop = std::make_shared<ThreadPoolLoop>(count, task, context);
    for (int64_t i = 0; i < helpers; ++i) {
      pool.Schedule([loop] { loop->Work(); });
    }
    loop->Work();
    loop->Wait();
  }

  void Work() {
    for (int64_t i = next_++; i < count_; i = next_++) {
      task_(context_, i);
      if (--unfinished_ == 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        finished_.notify_all();
      }
    }
  }

  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [this] { return unfinished_ == 0; });
  }

  const int64_t count_;
  void (*const task_)(void*, int64_t);
  void* const context_;
  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> unfinished_;
  std::mutex mutex_;
  std::condition_variable finished_;
};

}  // namespace sasa

#endif  // SASA_TF_NATIVE_FFI_THREAD_POOL_LOOP_H_
