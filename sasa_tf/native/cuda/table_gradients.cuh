// The gradients of the relative tables. The dQ kernels write a partial sum per CTA; the dK/dV
// kernels, which follow, add them in a fixed order, so that the results are deterministic.
#ifndef SASA_TF_NATIVE_CUDA_TABLE_GRADIENTS_CUH_
#define SASA_TF_NATIVE_CUDA_TABLE_GRADIENTS_CUH_

#include <cstdint>

#include "cuda/warp_reduce.cuh"
#include "local_attention.h"

namespace sasa {

// The partial sums in the workspace, which follow delta.
inline float* TablePartials(const LocalAttentionProblem& p, float* workspace) {
  return workspace + p.batch * p.height * p.width * p.heads;
}

// What a dK/dV kernel reduces; nothing if `elements` is 0.
struct TableReduction {
  const float* partials;  // [ctas, elements]; the row table's elements come first
  int ctas, row_elements, elements;
  float factor;  // multiplies the sums
  float *d_relative_rows, *d_relative_columns;
};

inline TableReduction MakeTableReduction(const LocalAttentionProblem& p, float* workspace, int ctas,
                                         float factor, float* d_relative_rows,
                                         float* d_relative_columns) {
  const int half = static_cast<int>(p.head_dim) / 2;
  TableReduction reduction = {};
  reduction.partials = TablePartials(p, workspace);
  reduction.ctas = ctas;
  reduction.row_elements = p.kernel_rows * half;
  reduction.elements = p.has_relative ? (p.kernel_rows + p.kernel_columns) * half : 0;
  reduction.factor = factor;
  reduction.d_relative_rows = d_relative_rows;
  reduction.d_relative_columns = d_relative_columns;
  return reduction;
}

// Each CTA reduces some of the elements. Called by all threads, at the end of a kernel that runs
// after the one that wrote the partial sums.
__device__ inline void ReduceTableGradients(const TableReduction& r) {
  __shared__ float warp_sums[1024 / kWarpSize];
  const int threads = blockDim.x;
  for (int element = blockIdx.x; element < r.elements; element += gridDim.x) {
    float sum = 0.f;
    for (int cta = threadIdx.x; cta < r.ctas; cta += threads) {
      sum += r.partials[static_cast<int64_t>(cta) * r.elements + element];
    }
    sum = WarpReduceSum<1>(sum);
    if (threadIdx.x % kWarpSize == 0) warp_sums[threadIdx.x / kWarpSize] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      sum = 0.f;
      for (int warp = 0; warp < threads / kWarpSize; ++warp) sum += warp_sums[warp];
      float* to = element < r.row_elements ? r.d_relative_rows + element
                                           : r.d_relative_columns + element - r.row_elements;
      *to = sum * r.factor;
    }
    __syncthreads();
  }
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_TABLE_GRADIENTS_CUH_
