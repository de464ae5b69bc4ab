// The backward pass of the projections as an XLA custom call, for NVIDIA GPUs, with
// SASA_TF_WITH_CUDA.
#include "ffi/buffers.h"
#include "ffi/registration.h"
#include "projection_kernels.h"

namespace sasa {
namespace {

namespace ffi = xla::ffi;

#ifdef SASA_TF_WITH_CUDA
ffi::Error ProjectionBackward(Array inputs, Array kernel, Array d_outputs, ResultArray d_inputs,
                              ResultArray d_kernel, ResultArray workspace, void* stream) {
  const auto sizes = inputs.dimensions(), kernel_sizes = kernel.dimensions();
  if (sizes.size() != 4 || kernel_sizes.size() != 2 || kernel_sizes[0] != sizes[3]) {
    return ffi::Error::InvalidArgument(
        "the inputs must have shape [B, H, W, C], and the kernel [C, F]");
  }
  const ProjectionProblem p{.pixels = sizes[0] * sizes[1] * sizes[2],
                            .channels = kernel_sizes[0],
                            .outputs = kernel_sizes[1]};
  if (inputs.element_type() != ffi::DataType::BF16 ||
      static_cast<int64_t>(d_outputs.element_count()) != p.pixels * p.outputs) {
    return ffi::Error::InvalidArgument(
        "the arrays must be bfloat16, and the outputs' gradient must have shape [B, H, W, F]");
  }
  if (static_cast<int64_t>(workspace->element_count()) < ProjectionWorkspaceFloats(p.outputs)) {
    return ffi::Error::InvalidArgument("the workspace is smaller than ProjectionWorkspaceFloats");
  }
  const ProjectionBackwardArrays arrays{.inputs = inputs.untyped_data(),
                                        .kernel = kernel.untyped_data(),
                                        .d_outputs = d_outputs.untyped_data(),
                                        .d_inputs = d_inputs->untyped_data(),
                                        .d_kernel = d_kernel->untyped_data(),
                                        .workspace = Floats(workspace)};
  return ToError(CudaProjectionBackward(p, arrays, stream));
}

XLA_FFI_DEFINE_HANDLER(kCudaProjectionBackward, ProjectionBackward,
                       ffi::Ffi::Bind()
                           .Arg<Array>()  // inputs
                           .Arg<Array>()  // kernel
                           .Arg<Array>()  // d_outputs
                           .Ret<Array>()  // d_inputs
                           .Ret<Array>()  // d_kernel
                           .Ret<Array>()  // workspace
                           .Ctx<ffi::PlatformStream<void*>>());
#endif

}  // namespace

void RegisterProjections(Registrar& registrar) {
#ifdef SASA_TF_WITH_CUDA
  registrar.RegisterCuda("sasa_tf_projection_backward", kCudaProjectionBackward);
#else
  static_cast<void>(registrar);
#endif
}

}  // namespace sasa
