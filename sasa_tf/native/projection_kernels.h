// The interface of the backward pass of the projections of local self-attention (CUDA only).
#ifndef SASA_TF_NATIVE_PROJECTION_KERNELS_H_
#define SASA_TF_NATIVE_PROJECTION_KERNELS_H_

#include <cstdint>

namespace sasa {

// The projections are the product of `inputs` [pixels, channels] and a kernel [channels, outputs],
// in bfloat16.
struct ProjectionProblem {
  int64_t pixels, channels, outputs;
};

// `d_outputs` [pixels, outputs] is the gradient of the product. All but the workspace are bfloat16.
struct ProjectionBackwardArrays {
  const void *inputs, *kernel, *d_outputs;
  void *d_inputs, *d_kernel;
  float* workspace;  // `ProjectionWorkspaceFloats` floats
};

// At most this many thread blocks compute partial sums of the kernel's gradient, each of a slice of
// the channels. The partial sums are then added in a fixed order, so that the results are
// deterministic.
constexpr int64_t kProjectionWorkers = 144;
constexpr int64_t kProjectionSlice = 64;

constexpr int64_t ProjectionWorkspaceFloats(int64_t outputs) {
  return kProjectionWorkers * kProjectionSlice * outputs;
}

// Launches the kernels on `stream` (a cudaStream_t). Returns null, or an error message.
const char* CudaProjectionBackward(const ProjectionProblem& problem,
                                   const ProjectionBackwardArrays& arrays, void* stream);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_PROJECTION_KERNELS_H_
