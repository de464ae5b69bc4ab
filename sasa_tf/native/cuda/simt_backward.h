// The two kernels of the backward pass in SIMT arithmetic.
#ifndef SASA_TF_NATIVE_CUDA_SIMT_BACKWARD_H_
#define SASA_TF_NATIVE_CUDA_SIMT_BACKWARD_H_

#include <cuda_runtime.h>

#include "cuda/table_gradients.cuh"
#include "local_attention.h"

namespace sasa {

// Launches dQ, which also writes delta and the partial sums of the tables' gradients; returns the
// reduction of the latter.
TableReduction SimtBackwardDq(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                              cudaStream_t stream);
// Launches dK/dV, which also reduces the tables' gradients.
void SimtBackwardDkv(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                     const TableReduction& tables, cudaStream_t stream);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_SIMT_BACKWARD_H_
