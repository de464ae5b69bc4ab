// The kernels as XLA custom calls (typed FFI), for the processor and, with SASA_TF_WITH_CUDA, for
// GPUs.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>

#include "cpu/attention.h"
#include "cpu/stem_attention.h"
#include "local_attention.h"
#include "stem_kernels.h"
#include "xla/ffi/api/c_api.h"
#include "xla/ffi/api/ffi.h"

extern "C" const XLA_FFI_Api* XLA_FFI_GetApi();  // of libtensorflow_framework

namespace sasa {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;

// Tasks on XLA's thread pool. The calling thread works too, and waits for what others have begun
// only, so that it never waits for a pool whose threads all wait likewise.
class PoolLoop {
 public:
  static void Run(void* threads, int64_t count, void (*task)(void*, int64_t), void* context) {
    ffi::ThreadPool& pool = *static_cast<ffi::ThreadPool*>(threads);
    const int64_t helpers = std::min(pool.num_threads(), count) - 1;
    auto loop = std::make_shared<PoolLoop>(count, task, context);
    for (int64_t i = 0; i < helpers; ++i) {
      pool.Schedule([loop] { loop->Work(); });
    }
    loop->Work();
    loop->Wait();
  }

  PoolLoop(int64_t count, void (*task)(void*, int64_t), void* context)
      : count_(count), task_(task), context_(context), left_(count) {}

 private:
  void Work() {
    for (int64_t i = next_++; i < count_; i = next_++) {
      task_(context_, i);
      if (--left_ == 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        ended_.notify_all();
      }
    }
  }

  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, [this] { return left_ == 0; });
  }

  const int64_t count_;
  void (*const task_)(void*, int64_t);
  void* const context_;
  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> left_;
  std::mutex mutex_;
  std::condition_variable ended_;
};

ffi::ErrorOr<DType> DTypeOf(const Array& array) {
  switch (array.element_type()) {
    case ffi::DataType::F32:
      return DType::kFloat32;
    case ffi::DataType::BF16:
      return DType::kBfloat16;
    case ffi::DataType::F16:
      return DType::kFloat16;
    default:
      return ffi::Unexpected(
          ffi::Error::InvalidArgument("the arrays must be float32, bfloat16 or float16"));
  }
}

struct Window {
  int64_t kernel_rows, kernel_columns, dilation_rows, dilation_columns;
  bool mask_border, has_key, has_relative;
  float scale;
};

// The query has shape [B, H, W, N, D]; if it has six axes, [B, H, W, parts, N, D], key and value
// are the same array.
ffi::ErrorOr<LocalAttentionProblem> MakeProblem(const Array& query, const Window& window) {
  const auto sizes = query.dimensions();
  const int32_t parts = window.has_key ? 3 : 2;
  const bool shared = sizes.size() == 6 && sizes[3] == parts;
  if (sizes.size() != 5 && !shared) {
    return ffi::Unexpected(
        ffi::Error::InvalidArgument("query must have shape [B, H, W, N, D], or [B, H, W, parts, N, "
                                    "D] of as many parts as there "
                                    "are of query, key and value"));
  }
  const ffi::ErrorOr<DType> type = DTypeOf(query);
  if (!type.has_value()) return ffi::Unexpected(type.error());
  return LocalAttentionProblem{.batch = sizes[0],
                               .height = sizes[1],
                               .width = sizes[2],
                               .heads = sizes[sizes.size() - 2],
                               .head_dim = sizes[sizes.size() - 1],
                               .kernel_rows = static_cast<int32_t>(window.kernel_rows),
                               .kernel_columns = static_cast<int32_t>(window.kernel_columns),
                               .dilation_rows = static_cast<int32_t>(window.dilation_rows),
                               .dilation_columns = static_cast<int32_t>(window.dilation_columns),
                               .mask_border = window.mask_border,
                               .has_key = window.has_key,
                               .has_relative = window.has_relative,
                               .scale = window.scale,
                               .qkv_parts = shared ? parts : 1,
                               .type = *type};
}

// For means of the outputs in an array of these sizes.
ffi::Error SetPool(LocalAttentionProblem& p, ffi::AnyBuffer::Dimensions means) {
  p.pool_size = static_cast<int32_t>(means.size() == 5 && means[1] > 0 ? p.height / means[1] : 0);
  if (p.pool_size >= 1 && means[1] * p.pool_size == p.height && means[2] * p.pool_size == p.width) {
    return ffi::Error::Success();
  }
  return ffi::Error::InvalidArgument(
      "the means, or their gradient, must be of the outputs over square blocks of pixels");
}

ffi::Error AsError(const char* reason) {
  return reason == nullptr ? ffi::Error::Success() : ffi::Error::Internal(reason);
}

// Where a part begins: in an array of its own, or behind the first part's.
template <typename Pointer>
Pointer Part(const LocalAttentionProblem& p, Pointer own, Pointer first, int part) {
  if (p.qkv_parts == 1) return own;
  using Byte =
      std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char, char>;
  const int64_t bytes = p.heads * p.head_dim * (p.type == DType::kFloat32 ? 4 : 2);
  return static_cast<Byte*>(first) + part * bytes;
}

const float* Floats(const Array& array) { return static_cast<const float*>(array.untyped_data()); }
float* Floats(Result& array) { return static_cast<float*>(array->untyped_data()); }

// On the processor, with XLA's threads.
const char* Compute(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                    ffi::ThreadPool pool) {
  return CpuForward(problem, arrays, {PoolLoop::Run, &pool});
}
const char* Compute(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                    ffi::ThreadPool pool) {
  return CpuBackward(problem, arrays, {PoolLoop::Run, &pool});
}
const char* Compute(const StemProblem& problem, const StemForwardArrays& arrays,
                    ffi::ThreadPool pool) {
  return CpuStemForward(problem, arrays, {PoolLoop::Run, &pool});
}
const char* Compute(const StemProblem& problem, const StemBackwardArrays& arrays,
                    ffi::ThreadPool pool) {
  return CpuStemBackward(problem, arrays, {PoolLoop::Run, &pool});
}

#ifdef SASA_TF_WITH_CUDA
// On a GPU, in a stream of it.
const char* Compute(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                    void* stream) {
  return CudaForward(problem, arrays, stream);
}
const char* Compute(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                    void* stream) {
  return CudaBackward(problem, arrays, stream);
}
const char* Compute(const StemProblem& problem, const StemForwardArrays& arrays, void* stream) {
  return CudaStemForward(problem, arrays, stream);
}
const char* Compute(const StemProblem& problem, const StemBackwardArrays& arrays, void* stream) {
  return CudaStemBackward(problem, arrays, stream);
}
#endif

template <typename Where>
ffi::Error Forward(Array query, Array key, Array value, Array rows, Array columns, Result output,
                   Result log_sum, Result means, Window window, Where where) {
  auto problem = MakeProblem(query, window);
  if (!problem.has_value()) return problem.error();
  LocalAttentionProblem& p = *problem;
  if (means->element_count() > 0) {
    if (const ffi::Error error = SetPool(p, means->dimensions()); error.failure()) return error;
  }
  const void* first = query.untyped_data();
  const ForwardArrays arrays{first,
                             Part<const void*>(p, key.untyped_data(), first, 1),
                             Part<const void*>(p, value.untyped_data(), first, p.qkv_parts - 1),
                             Floats(rows),
                             Floats(columns),
                             output->untyped_data(),
                             Floats(log_sum),
                             means->untyped_data()};
  return AsError(Compute(*problem, arrays, where));
}

template <typename Where>
ffi::Error Backward(Array query, Array key, Array value, Array rows, Array columns, Array output,
                    Array log_sum, Array upstream, Result query_gradient, Result key_gradient,
                    Result value_gradient, Result rows_gradient, Result columns_gradient,
                    Result scratch, Window window, Where where) {
  auto problem = MakeProblem(query, window);
  if (!problem.has_value()) return problem.error();
  if (static_cast<int64_t>(scratch->element_count()) < WorkspaceFloats(*problem)) {
    return ffi::Error::InvalidArgument("the workspace is smaller than WorkspaceFloats");
  }
  LocalAttentionProblem& p = *problem;
  if (upstream.element_count() < output.element_count()) {
    if (const ffi::Error error = SetPool(p, upstream.dimensions()); error.failure()) return error;
  }
  const void* first = query.untyped_data();
  void* first_gradient = query_gradient->untyped_data();
  const BackwardArrays arrays{
      first,
      Part<const void*>(p, key.untyped_data(), first, 1),
      Part<const void*>(p, value.untyped_data(), first, p.qkv_parts - 1),
      Floats(rows),
      Floats(columns),
      output.untyped_data(),
      Floats(log_sum),
      upstream.untyped_data(),
      first_gradient,
      Part(p, key_gradient->untyped_data(), first_gradient, 1),
      Part(p, value_gradient->untyped_data(), first_gradient, p.qkv_parts - 1),
      Floats(rows_gradient),
      Floats(columns_gradient),
      Floats(scratch)};
  return AsError(Compute(*problem, arrays, where));
}

struct BlockSize {
  int64_t rows, columns;
};

ffi::ErrorOr<StemProblem> MakeStemProblem(const Array& pixels, const Array& values,
                                          const BlockSize& block) {
  const auto sizes = pixels.dimensions(), kernels = values.dimensions();
  if (sizes.size() != 4 || kernels.size() != 4 || sizes[3] > kMaxStemChannels ||
      kernels[0] != block.rows * block.columns || kernels[1] != sizes[3]) {
    return ffi::Unexpected(ffi::Error::InvalidArgument(
        "pixels must have shape [B, H, W, C], C at most 4, and values [places, C, N, D]"));
  }
  const ffi::ErrorOr<DType> type = DTypeOf(pixels);
  if (!type.has_value()) return ffi::Unexpected(type.error());
  return StemProblem{sizes[0],      sizes[1],   sizes[2],   sizes[3], block.rows,
                     block.columns, kernels[2], kernels[3], *type};
}

template <typename Where>
ffi::Error StemForward(Array pixels, Array similarity, Array values, Result output, BlockSize block,
                       Where where) {
  const auto problem = MakeStemProblem(pixels, values, block);
  if (!problem.has_value()) return problem.error();
  const StemForwardArrays arrays{pixels.untyped_data(), Floats(similarity), Floats(values),
                                 output->untyped_data()};
  return AsError(Compute(*problem, arrays, where));
}

template <typename Where>
ffi::Error StemBackward(Array pixels, Array similarity, Array values, Array upstream,
                        Result similarity_gradient, Result values_gradient, Result scratch,
                        BlockSize block, Where where) {
  const auto problem = MakeStemProblem(pixels, values, block);
  if (!problem.has_value()) return problem.error();
  if (static_cast<int64_t>(scratch->element_count()) < StemWorkspaceFloats(*problem)) {
    return ffi::Error::InvalidArgument("the workspace is smaller than StemWorkspaceFloats");
  }
  const StemBackwardArrays arrays{
      pixels.untyped_data(),       Floats(similarity),      Floats(values), upstream.untyped_data(),
      Floats(similarity_gradient), Floats(values_gradient), Floats(scratch)};
  return AsError(Compute(*problem, arrays, where));
}

}  // namespace
}  // namespace sasa

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(sasa::BlockSize, xla::ffi::StructMember<int64_t>("rows"),
                                      xla::ffi::StructMember<int64_t>("columns"));
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

auto BindForward() {
  return ffi::Ffi::Bind()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Array>()  // query, key, value
      .Arg<Array>()
      .Arg<Array>()  // tables
      .Ret<Array>()
      .Ret<Array>()
      .Ret<Array>()  // output, log-sum-exp, means
      .Attrs<Window>();
}

auto BindBackward() {
  return ffi::Ffi::Bind()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Array>()  // query, key, value
      .Arg<Array>()
      .Arg<Array>()  // tables
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Array>()  // output, log-sum-exp, upstream
      .Ret<Array>()
      .Ret<Array>()
      .Ret<Array>()  // gradients, as the first five
      .Ret<Array>()
      .Ret<Array>()
      .Ret<Array>()  // scratch
      .Attrs<Window>();
}

auto BindStemForward() {
  return ffi::Ffi::Bind()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Array>()  // pixels, similarity, values
      .Ret<Array>()  // output
      .Attrs<BlockSize>();
}

auto BindStemBackward() {
  return ffi::Ffi::Bind()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Array>()  // pixels, similarity, values
      .Arg<Array>()  // upstream
      .Ret<Array>()
      .Ret<Array>()  // gradients of similarity and values
      .Ret<Array>()  // scratch
      .Attrs<BlockSize>();
}

XLA_FFI_DEFINE_HANDLER(kHostForward, Forward<ffi::ThreadPool>,
                       BindForward().Ctx<ffi::ThreadPool>());
XLA_FFI_DEFINE_HANDLER(kHostBackward, Backward<ffi::ThreadPool>,
                       BindBackward().Ctx<ffi::ThreadPool>());
XLA_FFI_DEFINE_HANDLER(kHostStemForward, StemForward<ffi::ThreadPool>,
                       BindStemForward().Ctx<ffi::ThreadPool>());
XLA_FFI_DEFINE_HANDLER(kHostStemBackward, StemBackward<ffi::ThreadPool>,
                       BindStemBackward().Ctx<ffi::ThreadPool>());
#ifdef SASA_TF_WITH_CUDA
XLA_FFI_DEFINE_HANDLER(kCudaForward, Forward<void*>,
                       BindForward().Ctx<ffi::PlatformStream<void*>>());
XLA_FFI_DEFINE_HANDLER(kCudaBackward, Backward<void*>,
                       BindBackward().Ctx<ffi::PlatformStream<void*>>());
XLA_FFI_DEFINE_HANDLER(kCudaStemForward, StemForward<void*>,
                       BindStemForward().Ctx<ffi::PlatformStream<void*>>());
XLA_FFI_DEFINE_HANDLER(kCudaStemBackward, StemBackward<void*>,
                       BindStemBackward().Ctx<ffi::PlatformStream<void*>>());
#endif

// Keeps the first error in `message`.
void Register(const char* name, const char* platform, XLA_FFI_Handler* handler,
              XLA_FFI_Handler_Traits traits, std::string& message) {
  const XLA_FFI_Api* api = XLA_FFI_GetApi();
  XLA_FFI_Error* error = ffi::Ffi::RegisterStaticHandler(api, name, platform, handler, traits);
  if (error == nullptr) return;
  if (message.empty()) message = ffi::internal::GetErrorMessage(api, error);
  ffi::internal::DestroyError(api, error);
}

}  // namespace
}  // namespace sasa

// Makes the handlers known to XLA. Returns "", or the reason why not.
extern "C" __attribute__((visibility("default"))) const char* sasa_tf_register() {
  static const std::string message = [] {
    constexpr char forward[] = "sasa_tf_local_attention_forward";
    constexpr char backward[] = "sasa_tf_local_attention_backward";
    constexpr char pixel_forward[] = "sasa_tf_pixel_blocks_forward";
    constexpr char pixel_backward[] = "sasa_tf_pixel_blocks_backward";
    std::string message;
    sasa::Register(forward, "Host", sasa::kHostForward, 0, message);
    sasa::Register(backward, "Host", sasa::kHostBackward, 0, message);
    sasa::Register(pixel_forward, "Host", sasa::kHostStemForward, 0, message);
    sasa::Register(pixel_backward, "Host", sasa::kHostStemBackward, 0, message);
#ifdef SASA_TF_WITH_CUDA
    constexpr auto capturable = XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE;
    sasa::Register(forward, "CUDA", sasa::kCudaForward, capturable, message);
    sasa::Register(backward, "CUDA", sasa::kCudaBackward, capturable, message);
    sasa::Register(pixel_forward, "CUDA", sasa::kCudaStemForward, capturable, message);
    sasa::Register(pixel_backward, "CUDA", sasa::kCudaStemBackward, capturable, message);
#endif
    return message;
  }();
  return message.c_str();
}
