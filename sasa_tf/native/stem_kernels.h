// What the kernels of attention inside of blocks compute (the stem's, paper Sec. 3.2), from the
// pixels themselves: an image has few channels, so queries, keys and values need never exist.
//
// Blocks lie as the windows of a pooling of their size and stride with padding "SAME" do. For the
// places p and q of a block, of P, and a head n, with x a pixel's channels:
//
//   logit(p, q) = x_p^T similarity[n] x_q
//   output_p = sum_q softmax_q(logit(p, q)) values[q]^T x_q
//
// Shapes: B batch, H W height width, C channels, N heads, D head width; all arrays are dense, the
// last axis fastest. Nothing of TensorFlow or XLA is included here.
#ifndef SASA_TF_NATIVE_PIXEL_BLOCKS_H_
#define SASA_TF_NATIVE_PIXEL_BLOCKS_H_

#include <algorithm>
#include <cstdint>

#include "local_attention.h"

namespace sasa {

constexpr int64_t kMaximalChannels = 4;

struct PixelProblem {
  int64_t batch, height, width, channels;  // B, H, W, C
  int64_t block_rows, block_columns;       // of pixels; their product is P
  int64_t heads, depth;                    // N, D
  Type type;                               // of pixels and outputs
};

// `similarity` [N, C, C], the query's channel before the key's, and `values` [P, C, N, D] are
// float32; pixels [B, H, W, C] and output [B, H, W, N, D] are `type`.
struct PixelForwardArrays {
  const void* pixels;
  const float *similarity, *values;
  void* output;
};

struct PixelBackwardArrays {
  const void* pixels;
  const float *similarity, *values;
  const void* upstream;  // gradient of the output
  float *similarity_gradient, *values_gradient;
  float* scratch;  // `PixelScratchFloats(problem)` of them
};

// Gradients are summed by at most this many workers, then over the workers in a fixed order.
constexpr int64_t kPixelWorkers = 32;

// Of one worker: for each head, P C vectors of D numbers and C C vectors of up to 16 numbers.
inline int64_t PixelTableFloats(const PixelProblem& p) {
  const int64_t row = (p.depth + 15) / 16 * 16, places = p.block_rows * p.block_columns;
  return p.heads * (places * p.channels * row + p.channels * p.channels * 16);
}

// A GPU has more workers, unless what each of them sums is large.
inline int64_t PixelGpuWorkers(const PixelProblem& p) {
  constexpr int64_t kMost = 512, kFloats = int64_t{1} << 21;
  const int64_t table = std::max(PixelTableFloats(p), int64_t{1});
  return std::max(kPixelWorkers, std::min(kMost, kFloats / table));
}

// For either, as one program serves both.
inline int64_t PixelScratchFloats(const PixelProblem& p) {
  return PixelGpuWorkers(p) * PixelTableFloats(p);
}

// The CUDA kernels, enqueued on `stream` (a cudaStream_t). Each returns null, or why it cannot.
const char* CudaPixelForward(const PixelProblem& problem, const PixelForwardArrays& arrays,
                             void* stream);
const char* CudaPixelBackward(const PixelProblem& problem, const PixelBackwardArrays& arrays,
                              void* stream);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_PIXEL_BLOCKS_H_
