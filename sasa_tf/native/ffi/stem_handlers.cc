// The stem attention kernels as XLA custom calls, for the CPU and, with SASA_TF_WITH_CUDA, for
// NVIDIA GPUs.
#include "cpu/stem_attention.h"
#include "ffi/buffers.h"
#include "ffi/registration.h"
#include "ffi/thread_pool_loop.h"
#include "stem_kernels.h"

namespace sasa {
namespace {

// Attributes of the custom calls.
struct BlockSize {
  int64_t rows, columns;
};

}  // namespace
}  // namespace sasa

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(sasa::BlockSize, xla::ffi::StructMember<int64_t>("rows"),
                                      xla::ffi::StructMember<int64_t>("columns"));

namespace sasa {
namespace {

namespace ffi = xla::ffi;

ffi::ErrorOr<StemProblem> MakeProblem(const Array& pixels, const Array& w_v,
                                      const BlockSize& block) {
  const auto image = pixels.dimensions(), kernel = w_v.dimensions();
  if (image.size() != 4 || kernel.size() != 4 || image[3] > kMaxStemChannels ||
      kernel[0] != block.rows * block.columns || kernel[1] != image[3]) {
    return ffi::Unexpected(ffi::Error::InvalidArgument(
        "pixels must have shape [B, H, W, C], with C at most 4, and w_v [P, C, N, D], with P the "
        "number of pixels in a block"));
  }
  const ffi::ErrorOr<DType> type = DTypeOf(pixels);
  if (!type.has_value()) return ffi::Unexpected(type.error());
  return StemProblem{.batch = image[0],
                     .height = image[1],
                     .width = image[2],
                     .channels = image[3],
                     .block_rows = block.rows,
                     .block_columns = block.columns,
                     .heads = kernel[2],
                     .head_dim = kernel[3],
                     .type = *type};
}

// The device is XLA's thread pool on the CPU, and a stream on a GPU.
const char* Compute(const StemProblem& problem, const StemForwardArrays& arrays,
                    ffi::ThreadPool pool) {
  return CpuStemForward(problem, arrays, ThreadPoolLoop::On(pool));
}
const char* Compute(const StemProblem& problem, const StemBackwardArrays& arrays,
                    ffi::ThreadPool pool) {
  return CpuStemBackward(problem, arrays, ThreadPoolLoop::On(pool));
}
#ifdef SASA_TF_WITH_CUDA
const char* Compute(const StemProblem& problem, const StemForwardArrays& arrays, void* stream) {
  return CudaStemForward(problem, arrays, stream);
}
const char* Compute(const StemProblem& problem, const StemBackwardArrays& arrays, void* stream) {
  return CudaStemBackward(problem, arrays, stream);
}
#endif

template <typename Device>
ffi::Error Forward(Array pixels, Array w_qk, Array w_v, ResultArray output, BlockSize block,
                   Device device) {
  const auto problem = MakeProblem(pixels, w_v, block);
  if (!problem.has_value()) return problem.error();
  const StemForwardArrays arrays{.pixels = pixels.untyped_data(),
                                 .w_qk = Floats(w_qk),
                                 .w_v = Floats(w_v),
                                 .output = output->untyped_data()};
  return ToError(Compute(*problem, arrays, device));
}

template <typename Device>
ffi::Error Backward(Array pixels, Array w_qk, Array w_v, Array d_output, ResultArray d_w_qk,
                    ResultArray d_w_v, ResultArray workspace, BlockSize block, Device device) {
  const auto problem = MakeProblem(pixels, w_v, block);
  if (!problem.has_value()) return problem.error();
  if (static_cast<int64_t>(workspace->element_count()) < StemWorkspaceFloats(*problem)) {
    return ffi::Error::InvalidArgument("the workspace is smaller than StemWorkspaceFloats");
  }
  const StemBackwardArrays arrays{.pixels = pixels.untyped_data(),
                                  .w_qk = Floats(w_qk),
                                  .w_v = Floats(w_v),
                                  .d_output = d_output.untyped_data(),
                                  .d_w_qk = Floats(d_w_qk),
                                  .d_w_v = Floats(d_w_v),
                                  .workspace = Floats(workspace)};
  return ToError(Compute(*problem, arrays, device));
}

auto BindForward() {
  return ffi::Ffi::Bind()
      .Arg<Array>()  // pixels
      .Arg<Array>()  // w_qk
      .Arg<Array>()  // w_v
      .Ret<Array>()  // output
      .Attrs<BlockSize>();
}

auto BindBackward() {
  return ffi::Ffi::Bind()
      .Arg<Array>()  // pixels
      .Arg<Array>()  // w_qk
      .Arg<Array>()  // w_v
      .Arg<Array>()  // d_output
      .Ret<Array>()  // d_w_qk
      .Ret<Array>()  // d_w_v
      .Ret<Array>()  // workspace
      .Attrs<BlockSize>();
}

XLA_FFI_DEFINE_HANDLER(kCpuForward, Forward<ffi::ThreadPool>, BindForward().Ctx<ffi::ThreadPool>());
XLA_FFI_DEFINE_HANDLER(kCpuBackward, Backward<ffi::ThreadPool>,
                       BindBackward().Ctx<ffi::ThreadPool>());
#ifdef SASA_TF_WITH_CUDA
XLA_FFI_DEFINE_HANDLER(kCudaForward, Forward<void*>,
                       BindForward().Ctx<ffi::PlatformStream<void*>>());
XLA_FFI_DEFINE_HANDLER(kCudaBackward, Backward<void*>,
                       BindBackward().Ctx<ffi::PlatformStream<void*>>());
#endif

}  // namespace

void RegisterStemAttention(Registrar& registrar) {
  constexpr char forward[] = "sasa_tf_stem_attention_forward";
  constexpr char backward[] = "sasa_tf_stem_attention_backward";
  registrar.RegisterCpu(forward, kCpuForward);
  registrar.RegisterCpu(backward, kCpuBackward);
#ifdef SASA_TF_WITH_CUDA
  registrar.RegisterCuda(forward, kCudaForward);
  registrar.RegisterCuda(backward, kCudaBackward);
#endif
}

}  // namespace sasa
