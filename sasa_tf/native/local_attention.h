// What the CPU and the CUDA kernels of local attention compute, and what calls them.
//
// Shapes: B batch, H W height width, N heads, D head width, K kernel; all arrays are dense, the
// last axis fastest. Nothing of TensorFlow or XLA is included here.
#ifndef SASA_TF_NATIVE_LOCAL_ATTENTION_H_
#define SASA_TF_NATIVE_LOCAL_ATTENTION_H_

#include <cstdint>

namespace sasa {

enum class Type : int32_t { kFloat32, kBfloat16, kFloat16 };

struct Problem {
  int64_t batch, height, width, heads, depth;  // B, H, W, N, D
  int32_t kernel_rows, kernel_columns;         // K of each axis, odd
  int32_t dilation_rows, dilation_columns;     // pixels
  bool mask_border;   // neighbours outside of the image take no part; else they are zeros that do
  bool has_key;       // false: the logits are the relative terms alone; key is not read
  bool has_relative;  // false: no relative terms; the tables are not read
  float scale;        // multiplies the query
  // Arrays that query, key and value, and likewise their gradients, share pixel by pixel: 1, each
  // has its own; 3 or (without keys) 2, in one array [B, H, W, parts, N, D].
  int32_t parts;
  Type type;  // of query, key, value, output and their gradients
  // If not 1, the forward pass also writes the means of the outputs over blocks of pool x pool
  // pixels, [B, H / pool, W / pool, N, D], and the upstream gradient is that of the means. Of the
  // CUDA kernels only those on the tensor cores compute them, for 2.
  int32_t pool = 1;
};

// Pointers are to the first number of the part. Tables are float32, rows [kernel_rows, D/2],
// columns [kernel_columns, D/2]; log_sum is float32 [B, H, W, N]; the others are `type` [B, H, W,
// N, D].
struct ForwardArrays {
  const void *query, *key, *value;
  const float *rows, *columns;
  void* output;
  float* log_sum;
  void* means = nullptr;
};

struct BackwardArrays {
  const void *query, *key, *value;
  const float *rows, *columns;
  const void* output;
  const float* log_sum;
  const void* upstream;  // gradient of the output, or of its means
  void *query_gradient, *key_gradient, *value_gradient;
  float *rows_gradient, *columns_gradient;
  float* scratch;  // `ScratchFloats(problem)` of them
};

// The gradients of the tables are first summed by this many workers, then over the workers in a
// fixed order, so that they do not depend on scheduling.
constexpr int64_t kTableWorkers = 1024;

// B H W N sums of output times upstream, then the workers' tables.
inline int64_t ScratchFloats(const Problem& p) {
  return p.batch * p.height * p.width * p.heads +
         kTableWorkers * (p.kernel_rows + p.kernel_columns) * (p.depth / 2);
}

// The CUDA kernels: enqueued on `stream` (a cudaStream_t). Each returns null, or the reason why
// not.
const char* CudaForward(const Problem& problem, const ForwardArrays& arrays, void* stream);
const char* CudaBackward(const Problem& problem, const BackwardArrays& arrays, void* stream);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_LOCAL_ATTENTION_H_
