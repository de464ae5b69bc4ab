// Host functions that launch the stem kernels: the tensor core path, the SIMT path, and the
// reduction that both end with.
#ifndef SASA_TF_NATIVE_CUDA_STEM_LAUNCH_H_
#define SASA_TF_NATIVE_CUDA_STEM_LAUNCH_H_

#include <cuda_runtime.h>

#include "stem_kernels.h"

namespace sasa::stem {

// Tensor cores: half precision, blocks of 4 x 4 pixels, heads of width 16.
bool MmaSupports(const StemProblem& problem);
void MmaForward(const StemProblem& problem, const StemForwardArrays& arrays, cudaStream_t stream);

// SIMT: everything else that is supported.
void SimtForward(const StemProblem& problem, const StemForwardArrays& arrays, cudaStream_t stream);

// These write the workers' partial sums of the gradients to the workspace and return the number of
// workers.
int MmaBackward(const StemProblem& problem, const StemBackwardArrays& arrays, cudaStream_t stream);
int SimtBackward(const StemProblem& problem, const StemBackwardArrays& arrays, cudaStream_t stream);

}  // namespace sasa::stem

#endif  // SASA_TF_NATIVE_CUDA_STEM_LAUNCH_H_
