// The CPU kernels, compiled for several instruction sets, and the selection of one at run time.
#ifndef SASA_TF_NATIVE_CPU_ISA_VARIANT_H_
#define SASA_TF_NATIVE_CPU_ISA_VARIANT_H_

#include <cstdint>

namespace sasa {

struct CpuKernels;
struct CpuStemKernels;

struct IsaVariant {
  int64_t lanes;  // floats in a vector
  const CpuKernels& attention;
  const CpuStemKernels& stem;
};

// Returns the best variant that this CPU supports. The environment variable SASA_TF_NATIVE_CPU
// (plain, avx2 or avx512) limits it.
const IsaVariant& ActiveIsaVariant();

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_ISA_VARIANT_H_
