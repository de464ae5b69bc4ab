// The interface of the local attention kernels (CPU and CUDA): problem description and arrays.
//
// Shapes: B batch, H W height width, N heads, D head width, K kernel. All arrays are dense and
// row-major. This header depends on neither TensorFlow nor XLA.
#ifndef SASA_TF_NATIVE_LOCAL_ATTENTION_H_
#define SASA_TF_NATIVE_LOCAL_ATTENTION_H_

#include <cstdint>

namespace sasa {

enum class DType : int32_t { kFloat32, kBfloat16, kFloat16 };

struct LocalAttentionProblem {
  int64_t batch, height, width;  // B, H, W
  int64_t heads, head_dim;       // N, D
  int32_t kernel_rows;           // K of the rows, odd
  int32_t kernel_columns;        // K of the columns, odd
  int32_t dilation_rows;         // in pixels
  int32_t dilation_columns;      // in pixels
  // Neighbors outside the image: true masks them out of the softmax, false lets them take part with
  // zero keys and values.
  bool mask_border;
  bool has_key;       // false: the logits are q.r alone, and `key` is not read
  bool has_relative;  // false: no q.r, and the relative tables are not read
  float scale;        // multiplies the query
  // 1: query, key and value are separate arrays [B, H, W, N, D], and so are their gradients.
  // 3, or 2 without keys: they are packed in one array [B, H, W, qkv_parts, N, D].
  int32_t qkv_parts;
  DType type;  // of query, key, value, output and their gradients
  // If not 1, the forward pass also writes the output averaged over blocks of pool_size x pool_size
  // pixels, [B, H / pool_size, W / pool_size, N, D], and d_output is the gradient of that average.
  // On CUDA only the tensor core kernels support this, for pool_size 2.
  int32_t pool_size = 1;
};

// With packed arrays, each pointer is to the first element of its part. `relative_rows`
// [kernel_rows, D/2] and `relative_columns` [kernel_columns, D/2] are float32; `lse`, the
// log-sum-exp of the logits, is float32 [B, H, W, N]; the other arrays are `type` [B, H, W, N, D].
// With a pooled output, only the backward pass needs `output` and `lse`; they are not written if they
// are null.
struct ForwardArrays {
  const void *query, *key, *value;
  const float *relative_rows, *relative_columns;
  void* output;
  float* lse;
  void* pooled_output = nullptr;
};

// The forward pass from the input of the projections, `inputs` [B, H, W, C], and their `kernel`
// [C, 3, N, D] for query, key and value, both of the problem's type. `lse` may be null.
struct ProjectedForwardArrays {
  const void *inputs, *kernel;
  const float *relative_rows, *relative_columns;
  void* output;
  float* lse;
};

struct BackwardArrays {
  const void *query, *key, *value;
  const float *relative_rows, *relative_columns;
  const void* output;
  const float* lse;
  const void* d_output;  // gradient of the output, or of the pooled output
  void *d_query, *d_key, *d_value;
  float *d_relative_rows, *d_relative_columns;
  float* workspace;  // `WorkspaceFloats(problem)` floats
};

// The backward pass from the input of the projections: see ProjectedForwardArrays for `inputs` and
// `kernel`, and BackwardArrays for the others. `d_qkv` [B, H, W, 3, N, D] is the gradient of query,
// key and value.
struct ProjectedBackwardArrays {
  const void *inputs, *kernel;
  const float *relative_rows, *relative_columns;
  const void* output;
  const float* lse;
  const void* d_output;
  void* d_qkv;
  float *d_relative_rows, *d_relative_columns;
  float* workspace;  // `WorkspaceFloats(problem)` floats
};

// At most this many workers compute partial sums of the gradients of the relative tables. The
// partial sums are then added in a fixed order, so that the results are deterministic.
constexpr int64_t kTableWorkers = 1024;

// B H W N sums of output times d_output (one per softmax), then the workers' partial tables.
inline int64_t WorkspaceFloats(const LocalAttentionProblem& p) {
  return p.batch * p.height * p.width * p.heads +
         kTableWorkers * (p.kernel_rows + p.kernel_columns) * (p.head_dim / 2);
}

// Launch the CUDA kernels on `stream` (a cudaStream_t). They return null, or an error message.
const char* CudaForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                        void* stream);
const char* CudaBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                         void* stream);
// The problem has qkv_parts 3, although query, key and value are in no array.
const char* CudaProjectedForward(const LocalAttentionProblem& problem, int64_t channels,
                                 const ProjectedForwardArrays& arrays, void* stream);
const char* CudaProjectedBackward(const LocalAttentionProblem& problem, int64_t channels,
                                  const ProjectedBackwardArrays& arrays, void* stream);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_LOCAL_ATTENTION_H_
