// Fragments of mma.m16n8k16: which elements a lane holds, and conversions between them.
#ifndef SASA_TF_NATIVE_CUDA_MMA_FRAGMENT_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_FRAGMENT_CUH_

#include <cstdint>

#include "cuda/ptx.cuh"
#include "cuda/warp_reduce.cuh"

namespace sasa {

__device__ constexpr float kZeros[4] = {0.f, 0.f, 0.f, 0.f};

// A lane's position in the fragments of mma and ldmatrix. An accumulator fragment [16, 8] has rows
// `row` and `row` + 8 and columns 2 `pair` and 2 `pair` + 1 in the lane.
struct MmaLane {
  int id;
  int row, pair;             // groupID and threadID_in_group of the PTX ISA
  int ldmatrix_row;          // the row whose address the lane passes to ldmatrix,
  int matrix_lo, matrix_hi;  // of matrix matrix_lo + 2 matrix_hi
  __device__ MmaLane() {
    id = threadIdx.x % kWarpSize;
    row = id / 4;
    pair = id % 4;
    ldmatrix_row = id % 8;
    matrix_lo = id / 8 % 2;
    matrix_hi = id / 16;
  }
};

// sum [16, 8] += the row sums of a [16, 16], in every column.
template <typename T>
__device__ inline void MmaRowSum(const uint32_t (&a)[4], float (&sum)[4]) {
  const uint32_t one = PackX2<T>(1.f, 1.f);
  MmaM16N8K16<T>(sum, a[0], a[1], a[2], a[3], one, one);
}

// Converts two accumulator fragments [16, 8] that lie side by side to an A fragment [16, 16].
template <typename T>
__device__ inline void PackAFragment(const float (&left)[4], const float (&right)[4],
                                     uint32_t (&a)[4]) {
  a[0] = PackX2<T>(left[0], left[1]);
  a[1] = PackX2<T>(left[2], left[3]);
  a[2] = PackX2<T>(right[0], right[1]);
  a[3] = PackX2<T>(right[2], right[3]);
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_FRAGMENT_CUH_
