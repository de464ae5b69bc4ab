// The processor's kernels, compiled for several instruction sets, and the choice between these.
#ifndef SASA_TF_NATIVE_CPU_VARIANT_H_
#define SASA_TF_NATIVE_CPU_VARIANT_H_

#include <cstdint>

namespace sasa {

struct CpuKernels;
struct CpuStemKernels;

struct CpuVariant {
  int64_t lanes;  // floats in a vector
  const CpuKernels& attention;
  const CpuStemKernels& pixels;
};

// The best that this processor runs; the environment variable SASA_TF_NATIVE_CPU (plain, avx2,
// avx512) holds it to less.
const CpuVariant& ChosenCpuVariant();

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_VARIANT_H_
