// The local attention kernels as XLA custom calls, for the CPU and, with SASA_TF_WITH_CUDA, for
// NVIDIA GPUs.
#include <algorithm>
#include <type_traits>

#include "cpu/attention.h"
#include "ffi/buffers.h"
#include "ffi/registration.h"
#include "ffi/thread_pool_loop.h"
#include "local_attention.h"

namespace sasa {
namespace {

// Attributes of the custom calls.
struct Window {
  int64_t kernel_rows, kernel_columns, dilation_rows, dilation_columns;
  bool mask_border, has_key, has_relative;
  float scale;
};

}  // namespace
}  // namespace sasa

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(sasa::Window, xla::ffi::StructMember<int64_t>("kernel_rows"),
                                      xla::ffi::StructMember<int64_t>("kernel_columns"),
                                      xla::ffi::StructMember<int64_t>("dilation_rows"),
                                      xla::ffi::StructMember<int64_t>("dilation_columns"),
                                      xla::ffi::StructMember<bool>("mask_border"),
                                      xla::ffi::StructMember<bool>("has_key"),
                                      xla::ffi::StructMember<bool>("has_relative"),
                                      xla::ffi::StructMember<float>("scale"));

namespace sasa {
namespace {

namespace ffi = xla::ffi;

// Beyond the image, a rate has no effect but to need memory for what is between the neighbors.
int32_t Dilation(int64_t rate, int64_t size) {
  return static_cast<int32_t>(std::min(rate, std::max<int64_t>(size, 1)));
}

// Of images of the given size: the first three are B, H and W.
LocalAttentionProblem MakeProblem(Array::Dimensions sizes, int64_t heads, int64_t head_dim,
                                  int32_t qkv_parts, DType type, const Window& window) {
  return LocalAttentionProblem{.batch = sizes[0],
                               .height = sizes[1],
                               .width = sizes[2],
                               .heads = heads,
                               .head_dim = head_dim,
                               .kernel_rows = static_cast<int32_t>(window.kernel_rows),
                               .kernel_columns = static_cast<int32_t>(window.kernel_columns),
                               .dilation_rows = Dilation(window.dilation_rows, sizes[1]),
                               .dilation_columns = Dilation(window.dilation_columns, sizes[2]),
                               .mask_border = window.mask_border,
                               .has_key = window.has_key,
                               .has_relative = window.has_relative,
                               .scale = window.scale,
                               .qkv_parts = qkv_parts,
                               .type = type};
}

bool SameShape(const Array& a, const Array& b) {
  const auto x = a.dimensions(), y = b.dimensions();
  return std::equal(x.begin(), x.end(), y.begin(), y.end());
}

// The query has shape [B, H, W, N, D], or packed [B, H, W, parts, N, D]; then it is the argument
// for key and value too.
ffi::ErrorOr<LocalAttentionProblem> MakeProblem(const Array& query, const Array& key,
                                                const Array& value, const Window& window) {
  const auto sizes = query.dimensions();
  const int32_t parts = window.has_key ? 3 : 2;
  const bool packed = sizes.size() == 6 && sizes[3] == parts;
  if (sizes.size() != 5 && !packed) {
    return ffi::Unexpected(ffi::Error::InvalidArgument(
        "query must have shape [B, H, W, N, D], or [B, H, W, parts, N, D] with one part for each "
        "of query, key (if any) and value"));
  }
  if (!SameShape(key, query) || !SameShape(value, query)) {
    return ffi::Unexpected(
        ffi::Error::InvalidArgument("query, key and value must have one shape"));
  }
  const ffi::ErrorOr<DType> type = DTypeOf(query);
  if (!type.has_value()) return ffi::Unexpected(type.error());
  return MakeProblem(sizes, sizes[sizes.size() - 2], sizes[sizes.size() - 1], packed ? parts : 1,
                     *type, window);
}

// Sets the pool size from the shape of the pooled output.
ffi::Error SetPoolSize(LocalAttentionProblem& p, ffi::AnyBuffer::Dimensions pooled) {
  p.pool_size =
      static_cast<int32_t>(pooled.size() == 5 && pooled[1] > 0 ? p.height / pooled[1] : 0);
  if (p.pool_size >= 1 && pooled[1] * p.pool_size == p.height &&
      pooled[2] * p.pool_size == p.width) {
    return ffi::Error::Success();
  }
  return ffi::Error::InvalidArgument(
      "the height and width of the pooled output, or of its gradient, must be those of the output "
      "divided by one pool size");
}

// Returns the address of a part: the start of its own array, or within the packed array.
template <typename Pointer>
Pointer Part(const LocalAttentionProblem& p, Pointer own, Pointer packed, int part) {
  if (p.qkv_parts == 1) return own;
  using Byte =
      std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char, char>;
  const int64_t bytes = p.heads * p.head_dim * (p.type == DType::kFloat32 ? 4 : 2);
  return static_cast<Byte*>(packed) + part * bytes;
}

// The device is XLA's thread pool on the CPU, and a stream on a GPU.
const char* Compute(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                    ffi::ThreadPool pool) {
  return CpuForward(problem, arrays, ThreadPoolLoop::On(pool));
}
const char* Compute(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                    ffi::ThreadPool pool) {
  return CpuBackward(problem, arrays, ThreadPoolLoop::On(pool));
}
#ifdef SASA_TF_WITH_CUDA
const char* Compute(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                    void* stream) {
  return CudaForward(problem, arrays, stream);
}
const char* Compute(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                    void* stream) {
  return CudaBackward(problem, arrays, stream);
}
#endif

// The address of a result; null if it has no elements, as it is not needed then.
void* DataOrNull(ResultArray& array) {
  return array->element_count() > 0 ? array->untyped_data() : nullptr;
}

template <typename Device>
ffi::Error Forward(Array query, Array key, Array value, Array relative_rows, Array relative_columns,
                   ResultArray output, ResultArray lse, ResultArray pooled_output, Window window,
                   Device device) {
  auto problem = MakeProblem(query, key, value, window);
  if (!problem.has_value()) return problem.error();
  LocalAttentionProblem& p = *problem;
  if (pooled_output->element_count() > 0) {
    const ffi::Error error = SetPoolSize(p, pooled_output->dimensions());
    if (error.failure()) return error;
  }
  const void* packed = query.untyped_data();
  const ForwardArrays arrays{
      .query = packed,
      .key = Part<const void*>(p, key.untyped_data(), packed, 1),
      .value = Part<const void*>(p, value.untyped_data(), packed, p.qkv_parts - 1),
      .relative_rows = Floats(relative_rows),
      .relative_columns = Floats(relative_columns),
      .output = DataOrNull(output),
      .lse = static_cast<float*>(DataOrNull(lse)),
      .pooled_output = pooled_output->untyped_data()};
  return ToError(Compute(p, arrays, device));
}

#ifdef SASA_TF_WITH_CUDA
// The inputs have shape [B, H, W, C], and the kernel [C, 3, N, D].
ffi::ErrorOr<LocalAttentionProblem> MakeProjectedProblem(const Array& inputs, const Array& kernel,
                                                         const Window& window) {
  const auto sizes = inputs.dimensions(), parts = kernel.dimensions();
  if (sizes.size() != 4 || parts.size() != 4 || parts[0] != sizes[3] || parts[1] != 3) {
    return ffi::Unexpected(ffi::Error::InvalidArgument(
        "the inputs must have shape [B, H, W, C], and the kernel [C, 3, N, D]"));
  }
  const ffi::ErrorOr<DType> type = DTypeOf(inputs);
  if (!type.has_value()) return ffi::Unexpected(type.error());
  return MakeProblem(sizes, parts[2], parts[3], 3, *type, window);
}

ffi::Error ProjectedForward(Array inputs, Array kernel, Array relative_rows,
                            Array relative_columns, ResultArray output, ResultArray lse,
                            Window window, void* stream) {
  const auto p = MakeProjectedProblem(inputs, kernel, window);
  if (!p.has_value()) return p.error();
  const ProjectedForwardArrays arrays{.inputs = inputs.untyped_data(),
                                      .kernel = kernel.untyped_data(),
                                      .relative_rows = Floats(relative_rows),
                                      .relative_columns = Floats(relative_columns),
                                      .output = output->untyped_data(),
                                      .lse = static_cast<float*>(DataOrNull(lse))};
  return ToError(CudaProjectedForward(*p, inputs.dimensions()[3], arrays, stream));
}

ffi::Error ProjectedBackward(Array inputs, Array kernel, Array relative_rows,
                             Array relative_columns, Array output, Array lse, Array d_output,
                             ResultArray d_qkv, ResultArray d_relative_rows,
                             ResultArray d_relative_columns, ResultArray workspace, Window window,
                             void* stream) {
  const auto p = MakeProjectedProblem(inputs, kernel, window);
  if (!p.has_value()) return p.error();
  if (static_cast<int64_t>(workspace->element_count()) < WorkspaceFloats(*p)) {
    return ffi::Error::InvalidArgument("the workspace is smaller than WorkspaceFloats");
  }
  const ProjectedBackwardArrays arrays{.inputs = inputs.untyped_data(),
                                       .kernel = kernel.untyped_data(),
                                       .relative_rows = Floats(relative_rows),
                                       .relative_columns = Floats(relative_columns),
                                       .output = output.untyped_data(),
                                       .lse = Floats(lse),
                                       .d_output = d_output.untyped_data(),
                                       .d_qkv = d_qkv->untyped_data(),
                                       .d_relative_rows = Floats(d_relative_rows),
                                       .d_relative_columns = Floats(d_relative_columns),
                                       .workspace = Floats(workspace)};
  return ToError(CudaProjectedBackward(*p, inputs.dimensions()[3], arrays, stream));
}
#endif

template <typename Device>
ffi::Error Backward(Array query, Array key, Array value, Array relative_rows,
                    Array relative_columns, Array output, Array lse, Array d_output,
                    ResultArray d_query, ResultArray d_key, ResultArray d_value,
                    ResultArray d_relative_rows, ResultArray d_relative_columns,
                    ResultArray workspace, Window window, Device device) {
  auto problem = MakeProblem(query, key, value, window);
  if (!problem.has_value()) return problem.error();
  LocalAttentionProblem& p = *problem;
  if (static_cast<int64_t>(workspace->element_count()) < WorkspaceFloats(p)) {
    return ffi::Error::InvalidArgument("the workspace is smaller than WorkspaceFloats");
  }
  if (d_output.element_count() < output.element_count()) {
    const ffi::Error error = SetPoolSize(p, d_output.dimensions());
    if (error.failure()) return error;
  }
  const void* packed = query.untyped_data();
  void* d_packed = d_query->untyped_data();
  const BackwardArrays arrays{
      .query = packed,
      .key = Part<const void*>(p, key.untyped_data(), packed, 1),
      .value = Part<const void*>(p, value.untyped_data(), packed, p.qkv_parts - 1),
      .relative_rows = Floats(relative_rows),
      .relative_columns = Floats(relative_columns),
      .output = output.untyped_data(),
      .lse = Floats(lse),
      .d_output = d_output.untyped_data(),
      .d_query = d_packed,
      .d_key = Part(p, d_key->untyped_data(), d_packed, 1),
      .d_value = Part(p, d_value->untyped_data(), d_packed, p.qkv_parts - 1),
      .d_relative_rows = Floats(d_relative_rows),
      .d_relative_columns = Floats(d_relative_columns),
      .workspace = Floats(workspace)};
  return ToError(Compute(p, arrays, device));
}

auto BindForward() {
  return ffi::Ffi::Bind()
      .Arg<Array>()  // query
      .Arg<Array>()  // key
      .Arg<Array>()  // value
      .Arg<Array>()  // relative_rows
      .Arg<Array>()  // relative_columns
      .Ret<Array>()  // output
      .Ret<Array>()  // lse
      .Ret<Array>()  // pooled_output
      .Attrs<Window>();
}

auto BindBackward() {
  return ffi::Ffi::Bind()
      .Arg<Array>()  // query
      .Arg<Array>()  // key
      .Arg<Array>()  // value
      .Arg<Array>()  // relative_rows
      .Arg<Array>()  // relative_columns
      .Arg<Array>()  // output
      .Arg<Array>()  // lse
      .Arg<Array>()  // d_output
      .Ret<Array>()  // d_query
      .Ret<Array>()  // d_key
      .Ret<Array>()  // d_value
      .Ret<Array>()  // d_relative_rows
      .Ret<Array>()  // d_relative_columns
      .Ret<Array>()  // workspace
      .Attrs<Window>();
}

XLA_FFI_DEFINE_HANDLER(kCpuForward, Forward<ffi::ThreadPool>, BindForward().Ctx<ffi::ThreadPool>());
XLA_FFI_DEFINE_HANDLER(kCpuBackward, Backward<ffi::ThreadPool>,
                       BindBackward().Ctx<ffi::ThreadPool>());
#ifdef SASA_TF_WITH_CUDA
XLA_FFI_DEFINE_HANDLER(kCudaForward, Forward<void*>,
                       BindForward().Ctx<ffi::PlatformStream<void*>>());
XLA_FFI_DEFINE_HANDLER(kCudaBackward, Backward<void*>,
                       BindBackward().Ctx<ffi::PlatformStream<void*>>());
XLA_FFI_DEFINE_HANDLER(kCudaProjectedForward, ProjectedForward,
                       ffi::Ffi::Bind()
                           .Arg<Array>()  // inputs
                           .Arg<Array>()  // kernel
                           .Arg<Array>()  // relative_rows
                           .Arg<Array>()  // relative_columns
                           .Ret<Array>()  // output
                           .Ret<Array>()  // lse
                           .Attrs<Window>()
                           .Ctx<ffi::PlatformStream<void*>>());
XLA_FFI_DEFINE_HANDLER(kCudaProjectedBackward, ProjectedBackward,
                       ffi::Ffi::Bind()
                           .Arg<Array>()  // inputs
                           .Arg<Array>()  // kernel
                           .Arg<Array>()  // relative_rows
                           .Arg<Array>()  // relative_columns
                           .Arg<Array>()  // output
                           .Arg<Array>()  // lse
                           .Arg<Array>()  // d_output
                           .Ret<Array>()  // d_qkv
                           .Ret<Array>()  // d_relative_rows
                           .Ret<Array>()  // d_relative_columns
                           .Ret<Array>()  // workspace
                           .Attrs<Window>()
                           .Ctx<ffi::PlatformStream<void*>>());
#endif

}  // namespace

void RegisterLocalAttention(Registrar& registrar) {
  constexpr char forward[] = "sasa_tf_local_attention_forward";
  constexpr char backward[] = "sasa_tf_local_attention_backward";
  registrar.RegisterCpu(forward, kCpuForward);
  registrar.RegisterCpu(backward, kCpuBackward);
#ifdef SASA_TF_WITH_CUDA
  registrar.RegisterCuda(forward, kCudaForward);
  registrar.RegisterCuda(backward, kCudaBackward);
  registrar.RegisterCuda("sasa_tf_local_attention_projected_forward", kCudaProjectedForward);
  registrar.RegisterCuda("sasa_tf_local_attention_projected_backward", kCudaProjectedBackward);
#endif
}

}  // namespace sasa
