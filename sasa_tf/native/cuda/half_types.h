// The 16-bit element types. ptx.cuh converts them, always in packed pairs.
//
// The toolkit's headers of such types, cuda_bf16.h and cuda_fp16.h, are not included, because they
// take nvcc about a second to compile in each source.
#ifndef SASA_TF_NATIVE_CUDA_HALF_TYPES_H_
#define SASA_TF_NATIVE_CUDA_HALF_TYPES_H_

#include <cstdint>

namespace sasa {

struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_HALF_TYPES_H_
