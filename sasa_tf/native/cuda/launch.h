// The two families of CUDA kernels of local attention, as host functions. limits.h has what they
// support.
#ifndef SASA_TF_NATIVE_CUDA_LAUNCH_H_
#define SASA_TF_NATIVE_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include "local_attention.h"

namespace sasa {

// SIMT kernels, in float32 FMAs: all element types, windows of 3 to 11 columns and 1 to 11 rows,
// head widths up to 128 that are multiples of 4.
void SimtForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                 cudaStream_t stream);
void SimtBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                  cudaStream_t stream);

// MMA kernels, on tensor cores: see UsesTensorCores in limits.h.
void MmaForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                cudaStream_t stream);
void MmaBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                 cudaStream_t stream);
// The forward pass of small images, where it is faster than MmaForward's other kernels, or `always`.
// Returns false if it is not, or does not support the problem or the GPU.
bool MmaRowForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays, bool always,
                   cudaStream_t stream);
// With the projections inside: see SupportsProjections in limits.h.
void MmaProjectedForward(const LocalAttentionProblem& problem, const ProjectedForwardArrays& arrays,
                         cudaStream_t stream);
// The backward pass in one kernel, where it is faster than in two, or `always`. Returns false if it
// is not, or does not support the problem.
bool MmaBackwardOnePass(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                        bool always, cudaStream_t stream);

// The backward pass of small images in one kernel. Returns false if it does not support the problem
// or the GPU.
bool MmaRowBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                    cudaStream_t stream);

// The backward pass in one kernel, with the projections inside: see SupportsProjectedBackward in
// limits.h. Returns false if the GPU does not have it.
bool MmaProjectedBackward(const LocalAttentionProblem& problem,
                          const ProjectedBackwardArrays& arrays, cudaStream_t stream);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_LAUNCH_H_
