// The stem attention kernels on CUDA: choice of the path, and the final reduction of the gradients.
//
// There are two paths: tensor cores (stem_mma_*) and SIMT (stem_simt_*). Both launch persistent
// thread blocks that loop over the images. Each worker writes its partial sums of the gradients to
// the workspace, and the last kernel adds them in a fixed order.
#include <cuda_runtime.h>

#include "cuda/kernel_launch.cuh"
#include "cuda/stem_launch.h"
#include "cuda/stem_partition.cuh"
#include "limits.h"
#include "stem_kernels.h"

namespace sasa {
namespace {

using stem::GradientSizes;

constexpr int kReduceThreads = 256;

// A lane sums one element; the warps share the workers' partial sums.
__global__ void __launch_bounds__(kReduceThreads)
    ReducePartials(const float* __restrict__ partials, int workers, GradientSizes sizes,
                   float* __restrict__ d_w_v, float* __restrict__ d_w_qk) {
  __shared__ float parts[kReduceThreads];
  const int element = blockIdx.x * kWarpSize + threadIdx.x % kWarpSize;
  float sum = 0.f;
  if (element < sizes.Total()) {
#pragma unroll 4
    for (int worker = threadIdx.x / kWarpSize; worker < workers;
         worker += kReduceThreads / kWarpSize) {
      sum += partials[static_cast<int64_t>(worker) * sizes.Total() + element];
    }
  }
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= kWarpSize || element >= sizes.Total()) return;
  for (int i = threadIdx.x + kWarpSize; i < kReduceThreads; i += kWarpSize) sum += parts[i];
  if (element < sizes.d_w_v) {
    d_w_v[element] = sum;
  } else {
    d_w_qk[element - sizes.d_w_v] = sum;
  }
}

bool IsEmpty(const StemProblem& p) {
  return p.batch * p.height * p.width * p.heads * p.head_dim == 0;
}

}  // namespace

const char* CudaStemForward(const StemProblem& p, const StemForwardArrays& arrays, void* stream) {
  if (const char* reason = UnsupportedReason(p, Platform::kCuda)) return reason;
  if (IsEmpty(p)) return nullptr;
  const auto launch = stem::MmaSupports(p) ? stem::MmaForward : stem::SimtForward;
  launch(p, arrays, static_cast<cudaStream_t>(stream));
  return LaunchError();
}

const char* CudaStemBackward(const StemProblem& p, const StemBackwardArrays& arrays,
                             void* cuda_stream) {
  if (const char* reason = UnsupportedReason(p, Platform::kCuda)) return reason;
  const auto stream = static_cast<cudaStream_t>(cuda_stream);
  const GradientSizes sizes = stem::CountGradients(p);
  if (IsEmpty(p)) {
    cudaMemsetAsync(arrays.d_w_v, 0, sizes.d_w_v * sizeof(float), stream);
    cudaMemsetAsync(arrays.d_w_qk, 0, sizes.d_w_qk * sizeof(float), stream);
    return LaunchError();
  }
  const auto launch = stem::MmaSupports(p) ? stem::MmaBackward : stem::SimtBackward;
  const int workers = launch(p, arrays, stream);
  LaunchKernel(ReducePartials, CeilDiv(sizes.Total(), kWarpSize), kReduceThreads, 0, stream,
               arrays.workspace, workers, sizes, arrays.d_w_v, arrays.d_w_qk);
  return LaunchError();
}

}  // namespace sasa
