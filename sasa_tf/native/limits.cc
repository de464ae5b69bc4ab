// C functions that expose the predicates and sizes of the headers, for tests/native/limits_test.py.
#include "limits.h"

#include "local_attention.h"
#include "projection_kernels.h"
#include "stem_kernels.h"

#define SASA_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using sasa::LocalAttentionProblem;
using sasa::StemProblem;

// `sizes`: B, H, W, N, D, kernel rows and columns, dilation rows and columns, QKV parts, the index
// of the type, and the pool size.
LocalAttentionProblem LocalAttention(const int64_t* sizes, float scale) {
  return {.batch = sizes[0],
          .height = sizes[1],
          .width = sizes[2],
          .heads = sizes[3],
          .head_dim = sizes[4],
          .kernel_rows = static_cast<int32_t>(sizes[5]),
          .kernel_columns = static_cast<int32_t>(sizes[6]),
          .dilation_rows = static_cast<int32_t>(sizes[7]),
          .dilation_columns = static_cast<int32_t>(sizes[8]),
          .mask_border = false,
          .has_key = true,
          .has_relative = true,
          .scale = scale,
          .qkv_parts = static_cast<int32_t>(sizes[9]),
          .type = static_cast<sasa::DType>(sizes[10]),
          .pool_size = static_cast<int32_t>(sizes[11])};
}

// `sizes`: B, H, W, C, block rows and columns, N, D, and the index of the type.
StemProblem Stem(const int64_t* sizes) {
  return {.batch = sizes[0],
          .height = sizes[1],
          .width = sizes[2],
          .channels = sizes[3],
          .block_rows = sizes[4],
          .block_columns = sizes[5],
          .heads = sizes[6],
          .head_dim = sizes[7],
          .type = static_cast<sasa::DType>(sizes[8])};
}

sasa::Platform PlatformOf(bool cuda) {
  return cuda ? sasa::Platform::kCuda : sasa::Platform::kCpu;
}

}  // namespace

SASA_EXPORT bool sasa_tf_local_attention_supported(const int64_t* sizes, float scale, bool cuda) {
  return sasa::UnsupportedReason(LocalAttention(sizes, scale), PlatformOf(cuda)) == nullptr;
}

SASA_EXPORT bool sasa_tf_local_attention_uses_tensor_cores(const int64_t* sizes, float scale) {
  return sasa::UsesTensorCores(LocalAttention(sizes, scale));
}

SASA_EXPORT bool sasa_tf_local_attention_supports_projections(const int64_t* sizes, float scale,
                                                              int64_t channels) {
  return sasa::SupportsProjections(LocalAttention(sizes, scale), channels);
}

SASA_EXPORT bool sasa_tf_local_attention_supports_projected_backward(const int64_t* sizes,
                                                                     float scale,
                                                                     int64_t channels) {
  return sasa::SupportsProjectedBackward(LocalAttention(sizes, scale), channels);
}

SASA_EXPORT bool sasa_tf_local_attention_projected_backward_is_faster(const int64_t* sizes) {
  return sasa::IsProjectedBackwardFaster(LocalAttention(sizes, 1.f));
}

// `sizes`: pixels, channels and outputs.
SASA_EXPORT bool sasa_tf_projection_backward_supported(const int64_t* sizes) {
  return sasa::SupportsProjectionBackward(
      {.pixels = sizes[0], .channels = sizes[1], .outputs = sizes[2]});
}

SASA_EXPORT int64_t sasa_tf_projection_backward_workspace_floats(int64_t outputs) {
  return sasa::ProjectionWorkspaceFloats(outputs);
}

SASA_EXPORT int64_t sasa_tf_local_attention_workspace_floats(const int64_t* sizes) {
  return sasa::WorkspaceFloats(LocalAttention(sizes, 1.f));
}

SASA_EXPORT bool sasa_tf_stem_attention_supported(const int64_t* sizes, bool cuda) {
  return sasa::UnsupportedReason(Stem(sizes), PlatformOf(cuda)) == nullptr;
}

SASA_EXPORT int64_t sasa_tf_stem_attention_workspace_floats(const int64_t* sizes) {
  return sasa::StemWorkspaceFloats(Stem(sizes));
}
