// Selects the CUDA kernels of local attention: MMA kernels where they support the problem, else SIMT
// kernels.
#include <cuda_runtime.h>

#include "cuda/kernel_launch.cuh"
#include "cuda/launch.h"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

bool Empty(const LocalAttentionProblem& p) {
  return p.batch * p.height * p.width * p.heads * p.head_dim == 0;
}

void ClearTableGradients(const LocalAttentionProblem& p, float* rows, float* columns,
                         cudaStream_t stream) {
  if (!p.has_relative) return;
  const size_t entry_bytes = p.head_dim / 2 * sizeof(float);
  cudaMemsetAsync(rows, 0, p.kernel_rows * entry_bytes, stream);
  cudaMemsetAsync(columns, 0, p.kernel_columns * entry_bytes, stream);
}

}  // namespace

const char* CudaForward(const LocalAttentionProblem& p, const ForwardArrays& arrays, void* stream) {
  if (const char* reason = UnsupportedReason(p, Platform::kCuda)) return reason;
  if (Empty(p)) return nullptr;
  (UsesTensorCores(p) ? MmaForward : SimtForward)(p, arrays, static_cast<cudaStream_t>(stream));
  return LaunchError();
}

const char* CudaProjectedForward(const LocalAttentionProblem& p, int64_t channels,
                                 const ProjectedForwardArrays& arrays, void* stream) {
  if (const char* reason = UnsupportedReason(p, Platform::kCuda)) return reason;
  if (!SupportsProjections(p, channels)) {
    return "the CUDA kernels have no kernel with the projections of this problem inside";
  }
  if (Empty(p)) return nullptr;
  MmaProjectedForward(p, arrays, static_cast<cudaStream_t>(stream));
  return LaunchError();
}

const char* CudaProjectedBackward(const LocalAttentionProblem& p, int64_t channels,
                                  const ProjectedBackwardArrays& arrays, void* stream) {
  if (const char* reason = UnsupportedReason(p, Platform::kCuda)) return reason;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (!SupportsProjectedBackward(p, channels)) {
    return "the CUDA kernels have no backward kernel with the projections of this problem inside";
  }
  if (Empty(p)) {
    ClearTableGradients(p, arrays.d_relative_rows, arrays.d_relative_columns, cuda_stream);
  } else if (!MmaProjectedBackward(p, arrays, cuda_stream)) {
    return "the backward kernel with the projections inside needs a GPU of compute capability 9.0";
  }
  return LaunchError();
}

const char* CudaBackward(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                         void* stream) {
  if (const char* reason = UnsupportedReason(p, Platform::kCuda)) return reason;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (Empty(p)) {
    ClearTableGradients(p, arrays.d_relative_rows, arrays.d_relative_columns, cuda_stream);
  } else {
    (UsesTensorCores(p) ? MmaBackward : SimtBackward)(p, arrays, cuda_stream);
  }
  return LaunchError();
}

}  // namespace sasa
