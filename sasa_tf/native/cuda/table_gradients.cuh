// The end of the tables' gradients: sums over the workers, in an order that does not depend on
// scheduling.
#ifndef SASA_TF_NATIVE_CUDA_TABLE_SUMS_CUH_
#define SASA_TF_NATIVE_CUDA_TABLE_SUMS_CUH_

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/element_types.cuh"

namespace sasa {

// What is to be summed; nothing if `numbers` is 0.
struct TableSums {
  const float* partials;  // [workers][numbers], of the rows before those of the columns
  int workers, row_numbers, numbers;
  float factor;
  float *rows, *columns;
};

inline TableSums SumsOf(const LocalAttentionProblem& p, const BackwardArrays& a, int workers,
                        float factor) {
  const int half = static_cast<int>(p.head_dim) / 2;
  const int numbers = p.has_relative ? (p.kernel_rows + p.kernel_columns) * half : 0;
  return {TablePartials(p, a), workers, p.kernel_rows * half, numbers, factor, a.d_relative_rows,
          a.d_relative_columns};
}

// By a kernel that comes after the one that wrote the partial sums: each thread block some numbers.
__device__ inline void SumTables(const TableSums& s) {
  __shared__ float warps[1024 / kWarpSize];
  const int threads = blockDim.x;
  for (int number = blockIdx.x; number < s.numbers; number += gridDim.x) {
    float sum = 0.f;
    for (int worker = threadIdx.x; worker < s.workers; worker += threads) {
      sum += s.partials[static_cast<int64_t>(worker) * s.numbers + number];
    }
    sum = WarpReduceSum<1>(sum);
    if (threadIdx.x % kWarpSize == 0) warps[threadIdx.x / kWarpSize] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      sum = 0.f;
      for (int warp = 0; warp < threads / kWarpSize; ++warp) sum += warps[warp];
      float* to = number < s.row_numbers ? s.rows + number : s.columns + number - s.row_numbers;
      *to = sum * s.factor;
    }
    __syncthreads();
  }
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_TABLE_SUMS_CUH_
