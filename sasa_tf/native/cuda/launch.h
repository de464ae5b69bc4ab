// The CUDA kernels as functions of the host: two families, and what both end with.
#ifndef SASA_TF_NATIVE_CUDA_LAUNCH_H_
#define SASA_TF_NATIVE_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include "local_attention.h"

namespace sasa {

// Runs of queries in ordinary arithmetic: every type, windows of 3 to 11 columns, head widths up to
// 128 in fours.
bool RunsCan(const LocalAttentionProblem& problem);
void RunsForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                 cudaStream_t stream);
void RunsBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                  cudaStream_t stream);

// Patches of queries on the tensor cores: half precision, windows of 7 x 7, head widths 8, 16, 32
// and 64.
bool PatchesCan(const LocalAttentionProblem& problem);
void PatchesForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                    cudaStream_t stream);
void PatchesBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                     cudaStream_t stream);

// The workers' part of the scratch memory.
inline float* TablePartials(const LocalAttentionProblem& p, const BackwardArrays& arrays) {
  return arrays.workspace + p.batch * p.height * p.width * p.heads;
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_LAUNCH_H_
