// Launches the backward pass of the projections, see wgmma_projection_backward.cuh.
#include "cuda/wgmma_projection_backward.cuh"

#include <cuda_runtime.h>

#include "cuda/kernel_attributes.h"
#include "cuda/kernel_launch.cuh"
#include "limits.h"
#include "projection_kernels.h"

namespace sasa {
namespace {

// Returns false if there is no code for this GPU, or no TMA.
template <typename Traits>
bool LaunchProjectionBackward(const ProjectionProblem& p, const ProjectionBackwardArrays& a,
                              cudaStream_t stream) {
  const auto kernel = ProjectionBackwardKernel<Traits>;
  if (!CompiledForSm90a(reinterpret_cast<const void*>(kernel))) return false;
  const auto encode = [&](const void* data, int64_t channels, TensorMap& tensor_map) {
    TensorMapDesc desc = {};
    desc.data = data;
    desc.images = desc.height = 1;
    desc.width = p.pixels;
    desc.channels = desc.pixel_stride = channels;
    desc.box_channels = WgmmaPanel::kColumns;
    desc.box_columns = Traits::kPixels;
    desc.box_rows = 1;
    return EncodeTensorMap(desc, tensor_map);
  };
  ProjectionTensorMaps maps = {};
  if (!encode(a.inputs, p.channels, maps.inputs) ||
      !encode(a.d_outputs, p.outputs, maps.d_outputs)) {
    return false;
  }
  const int tiles = static_cast<int>((p.pixels + Traits::kPixels - 1) / Traits::kPixels);
  const int workers = PersistentGridSize(kernel, tiles * Traits::kSlices, Traits::kThreads,
                                         Traits::kBytes, static_cast<int>(kProjectionWorkers)) /
                      Traits::kSlices;
  float4* partials = reinterpret_cast<float4*>(a.workspace);
  LaunchPdl(kernel, workers * Traits::kSlices, Traits::kThreads, Traits::kBytes, stream, maps,
            p.pixels, static_cast<const Bfloat16*>(a.kernel), static_cast<Bfloat16*>(a.d_inputs),
            partials);
  using Reduction = ProjectionReduction<Traits>;
  LaunchPdl(ReduceProjectionKernel<Traits>, Reduction::kCtas, Reduction::kThreads, 0, stream,
            partials, workers, static_cast<Bfloat16*>(a.d_kernel));
  return true;
}

}  // namespace

const char* CudaProjectionBackward(const ProjectionProblem& p, const ProjectionBackwardArrays& a,
                                   void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (!SupportsProjectionBackward(p)) {
    return "the CUDA kernels do not support the backward pass of these projections";
  }
  if (p.pixels == 0) {
    cudaMemsetAsync(a.d_kernel, 0, p.channels * p.outputs * sizeof(Bfloat16), cuda_stream);
    return LaunchError();
  }
  const bool launched =
      p.channels == 64
          ? LaunchProjectionBackward<ProjectionBackwardTraits<64, 4>>(p, a, cuda_stream)
          : LaunchProjectionBackward<ProjectionBackwardTraits<128, 3>>(p, a, cuda_stream);
  return launched ? LaunchError()
                  : "the backward pass of the projections needs code for sm_90a, and TMA";
}

}  // namespace sasa
