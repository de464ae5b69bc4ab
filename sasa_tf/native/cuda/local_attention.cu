// Which CUDA kernels compute a problem.
#include <cuda_runtime.h>

#include "cuda/launch.h"
#include "cuda/element_types.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// An image's channels and the thread blocks of one launch are counted with 32 bits.
const char* Refusal(const LocalAttentionProblem& p) {
  const int64_t limit = int64_t{1} << 31;
  if (p.height * p.width * p.qkv_parts * p.heads * p.head_dim >= limit) {
    return "an image of 2**31 numbers or more";
  }
  if (p.batch * p.height * p.width * p.heads >= limit) return "2**31 pixels times heads or more";
  if (!PatchesCan(p) && !RunsCan(p)) {
    return "no CUDA kernel for this window and head width";
  }
  if (p.pool_size != 1) {
    const bool can = p.pool_size == 2 && p.height % 2 == 0 && p.width % 2 == 0 && PatchesCan(p) &&
                     p.dilation_rows == 1 && p.dilation_columns == 1;
    if (!can) return "no CUDA kernel computes means of these outputs";
  }
  return nullptr;
}

const char* LaunchError() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

bool Empty(const LocalAttentionProblem& p) { return p.batch * p.height * p.width * p.heads == 0; }

}  // namespace

const char* CudaForward(const LocalAttentionProblem& p, const ForwardArrays& arrays, void* stream) {
  if (const char* refusal = Refusal(p)) return refusal;
  if (Empty(p)) return nullptr;
  (PatchesCan(p) ? PatchesForward : RunsForward)(p, arrays, static_cast<cudaStream_t>(stream));
  return LaunchError();
}

const char* CudaBackward(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                         void* stream) {
  if (const char* refusal = Refusal(p)) return refusal;
  const auto on = static_cast<cudaStream_t>(stream);
  if (Empty(p)) {
    const size_t line = p.head_dim / 2 * sizeof(float);
    if (p.has_relative) {
      cudaMemsetAsync(arrays.d_relative_rows, 0, p.kernel_rows * line, on);
      cudaMemsetAsync(arrays.d_relative_columns, 0, p.kernel_columns * line, on);
    }
  } else {
    (PatchesCan(p) ? PatchesBackward : RunsBackward)(p, arrays, on);
  }
  return LaunchError();
}

}  // namespace sasa
