// The interface of the stem attention kernels (CPU and CUDA): attention within blocks of pixels,
// as in the paper's attention stem (Sec. 3.2).
//
// An image has few channels, so the projections are absorbed and queries, keys and values are never
// materialized. The image is partitioned into blocks like the windows of a pooling layer whose size
// and strides are the block and whose padding is "SAME". For positions p and q of a block (P
// positions), a head n, and x the channels of a pixel:
//
//   logit(p, q) = x_p^T w_qk[n] x_q                          with w_qk = scale W_Q W_K^T
//   output_p    = sum_q softmax_q(logit(p, q)) w_v[q]^T x_q
//
// Shapes: B batch, H W height width, C channels, P positions, N heads, D head width. All arrays are
// dense and row-major. This header depends on neither TensorFlow nor XLA.
#ifndef SASA_TF_NATIVE_STEM_KERNELS_H_
#define SASA_TF_NATIVE_STEM_KERNELS_H_

#include <algorithm>
#include <cstdint>

#include "local_attention.h"

namespace sasa {

constexpr int64_t kMaxStemChannels = 4;  // C

struct StemProblem {
  int64_t batch, height, width, channels;  // B, H, W, C
  int64_t block_rows, block_columns;       // in pixels; their product is P
  int64_t heads, head_dim;                 // N, D
  DType type;                              // of the pixels and the output
};

// `w_qk` [N, C, C] (the query's channel, then the key's) and `w_v` [P, C, N, D] are float32;
// `pixels` [B, H, W, C] and `output` [B, H, W, N, D] are `type`.
struct StemForwardArrays {
  const void* pixels;
  const float *w_qk, *w_v;
  void* output;
};

struct StemBackwardArrays {
  const void* pixels;
  const float *w_qk, *w_v;
  const void* d_output;  // gradient of the output
  float *d_w_qk, *d_w_v;
  float* workspace;  // `StemWorkspaceFloats(problem)` floats
};

// At most this many CPU workers compute partial sums of the gradients. The partial sums are then
// added in a fixed order, so that the results are deterministic.
constexpr int64_t kStemWorkers = 32;

// The size of one worker's partial sums: for each head, P C vectors of D floats and C C vectors of
// up to 16 lanes.
inline int64_t StemPartialFloats(const StemProblem& p) {
  const int64_t row = (p.head_dim + 15) / 16 * 16, positions = p.block_rows * p.block_columns;
  return p.heads * (positions * p.channels * row + p.channels * p.channels * 16);
}

// A GPU has more workers, unless their partial sums are large.
inline int64_t StemGpuWorkers(const StemProblem& p) {
  constexpr int64_t kMaxWorkers = 512, kMaxFloats = int64_t{1} << 21;
  const int64_t partial = std::max(StemPartialFloats(p), int64_t{1});
  return std::max(kStemWorkers, std::min(kMaxWorkers, kMaxFloats / partial));
}

// The same for CPU and GPU, because one XLA module serves both.
inline int64_t StemWorkspaceFloats(const StemProblem& p) {
  return StemGpuWorkers(p) * StemPartialFloats(p);
}

// Launch the CUDA kernels on `stream` (a cudaStream_t). They return null, or an error message.
const char* CudaStemForward(const StemProblem& problem, const StemForwardArrays& arrays,
                            void* stream);
const char* CudaStemBackward(const StemProblem& problem, const StemBackwardArrays& arrays,
                             void* stream);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_STEM_KERNELS_H_
