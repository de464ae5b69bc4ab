// In the place of the emulated GPU's scheduler: a real one needs nothing of it.
#ifndef SASA_TF_TESTS_NATIVE_REAL_GPU_SCHEDULER_H_
#define SASA_TF_TESTS_NATIVE_REAL_GPU_SCHEDULER_H_

#include <cstdint>

namespace emulation {

constexpr char kName[] = "real";

inline void WhenFailing(void (*)()) {}
inline void Seed(uint64_t) {}

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_REAL_GPU_SCHEDULER_H_
