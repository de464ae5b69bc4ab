#include "cpu/parallel_for.h"

#include <cstdlib>

namespace sasa {
namespace {

// Reused by its thread, because an allocation takes longer than a small problem.
class ScratchMemory {
 public:
  ~ScratchMemory() { std::free(memory_); }

  float* Get(int64_t bytes) {
    if (bytes > bytes_) {
      std::free(memory_);
      memory_ = std::aligned_alloc(kAlignment, RoundUp(bytes, kAlignment));
      bytes_ = memory_ == nullptr ? 0 : bytes;
    }
    return static_cast<float*>(memory_);
  }

 private:
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

thread_local ScratchMemory scratch_of_thread;

}  // namespace

float* ThreadScratch(int64_t bytes) { return scratch_of_thread.Get(bytes); }

}  // namespace sasa
