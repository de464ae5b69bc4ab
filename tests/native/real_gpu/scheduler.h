// Replaces the emulated GPU's scheduler in programs that run on a real GPU.
#ifndef SASA_TF_TESTS_NATIVE_REAL_GPU_SCHEDULER_H_
#define SASA_TF_TESTS_NATIVE_REAL_GPU_SCHEDULER_H_

#include <cstdint>

namespace emulation {

constexpr char kGpuName[] = "real";

inline void OnFailure(void (*)()) {}
inline void Seed(uint64_t) {}

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_REAL_GPU_SCHEDULER_H_
