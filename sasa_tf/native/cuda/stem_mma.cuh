// What the forward and backward stem kernels on the tensor cores share: the pixels of a strip in
// shared memory, the fragments of a block, and its softmax.
//
// A warp processes one block of 4 x 4 pixels after the other. Its 16 positions are the rows of the
// MMA instructions.
#ifndef SASA_TF_NATIVE_CUDA_STEM_MMA_CUH_
#define SASA_TF_NATIVE_CUDA_STEM_MMA_CUH_

#include <type_traits>

#include "cuda/stem_partition.cuh"

namespace sasa::stem {

// The pixels of a strip in shared memory, as float32: for each block, one plane of positions per
// channel. Position j is stored at 2 (j % 8) + j / 8, so that a lane loads its rows of a fragment,
// positions r and r + 8, at once, and so its columns, positions 2t, 2t + 8, 2t + 1 and 2t + 9.
constexpr int kOnesPlane = kMaxStemChannels;  // all ones; right-hand side of row sums
constexpr int kPlaneFloats = 24;              // padded: rows of four planes in different banks
constexpr int kBlockFloats = 6 * kPlaneFloats + 4;
constexpr int kStripFloats = kStripBlocks * kBlockFloats;

__device__ inline int PlaneOffset(int position) { return position % 8 * 2 + position / 8; }

// The mask plane has the initial logits of the keys: kMaskedLogit for positions outside the image.
// With fewer than 4 channels it replaces an unused channel, for which the queries have a one, so
// that the MMA adds it.
template <typename S>
constexpr bool kHasSpareChannel = S::kChannels < kMaxStemChannels;
template <typename S>
constexpr int kMaskPlane = kHasSpareChannel<S> ? kMaxStemChannels - 1 : kMaxStemChannels + 1;

// Neighboring blocks of one row of blocks.
struct Strip {
  int top, left;  // first row and column of pixels; may be outside the image
  int blocks;
  int64_t first_pixel;  // index of the pixel at (top, left), which may be outside the image

  __device__ Strip(const BlockPartition& g, int index) {
    const int row = index / g.strips_per_row;
    const int column = (index - row * g.strips_per_row) * kStripBlocks;
    const int image = row / g.grid_rows;
    top = (row - image * g.grid_rows) * kBlockSide - g.pad_top;
    left = column * kBlockSide - g.pad_left;
    blocks = min(kStripBlocks, g.grid_columns - column);
    first_pixel = (static_cast<int64_t>(image) * g.height + top) * g.width + left;
  }
};

// The column of pixels that a lane loads of a strip.
template <typename S>
struct PixelColumn {
  uint16_t x[kBlockSide][S::kChannels];
  bool inside[kBlockSide];

  __device__ void Load(const BlockPartition& g, const Strip& strip, const typename S::T* pixels) {
    const int lane = threadIdx.x % kWarpSize, column = strip.left + lane;
    const auto* from =
        reinterpret_cast<const uint16_t*>(pixels) + (strip.first_pixel + lane) * S::kChannels;
#pragma unroll
    for (int row = 0; row < kBlockSide; ++row) {
      const int y = strip.top + row;
      inside[row] = y >= 0 && y < g.height && column >= 0 && column < g.width;
#pragma unroll
      for (int c = 0; c < S::kChannels; ++c) {
        x[row][c] = inside[row] ? __ldg(from + row * g.width * S::kChannels + c) : 0;
      }
    }
  }
  __device__ void Store(float* planes) const {
    const int lane = threadIdx.x % kWarpSize;
    float* block = planes + lane / kBlockSide * kBlockFloats;
#pragma unroll
    for (int row = 0; row < kBlockSide; ++row) {
      float* to = block + PlaneOffset(row * kBlockSide + lane % kBlockSide);
      to[kMaskPlane<S> * kPlaneFloats] = inside[row] ? 0.f : kMaskedLogit;
#pragma unroll
      for (int c = 0; c < S::kChannels; ++c) {
        to[c * kPlaneFloats] = UnpackX2(x[row][c], typename S::T()).x;
      }
    }
  }
};

// Writes what is the same for all strips: ones, and zeros for unused channels.
template <typename S>
__device__ inline void InitPlanes(float* planes) {
  for (int i = threadIdx.x % kWarpSize; i < kStripFloats; i += kWarpSize) {
    planes[i] = i % kBlockFloats / kPlaneFloats == kOnesPlane ? 1.f : 0.f;
  }
}

// w_qk of two heads as the right-hand side of a TF32 MMA with pixels [16, 4 channels], which are
// given twice: column 2 e + h is the key's channel e of head h; the rows are the query's channels
// of w_qk truncated to TF32, then of the remainder.
struct WqkFragment {
  float truncated, remainder;

  template <int kChannels>
  __device__ static WqkFragment Load(const float* w_qk, int first_head, int heads,
                                     const MmaLane& lane) {
    const int head = first_head + lane.row % 2, e = lane.row / 2, c = lane.pair;
    float x = 0.f;
    if (head < heads && c < kChannels && e < kChannels) {
      x = __ldg(w_qk + (head * kChannels + c) * kChannels + e) * kLog2E;
    }
    return {TruncateToTf32(x), x - TruncateToTf32(x)};
  }
};

// A block's pixels, and the initial logits, as fragments.
template <typename S>
struct PixelFragment {
  float x[2];                            // the lane's two rows; the channel is its pair
  float mask_0[4] = {}, mask_1[4] = {};  // initial logits of keys 0 to 7 and 8 to 15

  __device__ PixelFragment(const float* block, const MmaLane& lane) {
    const float2 two =
        *reinterpret_cast<const float2*>(block + lane.pair * kPlaneFloats + 2 * lane.row);
    x[0] = two.x;
    x[1] = two.y;
    if constexpr (!kHasSpareChannel<S>) {
      const float4 mask =
          *reinterpret_cast<const float4*>(block + kMaskPlane<S> * kPlaneFloats + 4 * lane.pair);
      mask_0[0] = mask_0[2] = mask.x;
      mask_1[0] = mask_1[2] = mask.y;
      mask_0[1] = mask_0[3] = mask.z;
      mask_1[1] = mask_1[3] = mask.w;
    }
  }
};

// Computes x^T w_qk for two heads: y[head][upper or lower row], for the key's channel that is the
// lane's pair. `one` is 1 in the lanes of a spare channel, for the mask.
template <typename S>
__device__ inline void ProjectQueries(const PixelFragment<S>& pixels, const WqkFragment& w_qk,
                                      float one, float (&y)[2][2]) {
  float product[4];
  MmaM16N8K8Tf32(product, {one, one, one, one}, pixels.x[0], pixels.x[1], pixels.x[0], pixels.x[1],
                 w_qk.truncated, w_qk.remainder);
  y[0][0] = product[0];
  y[1][0] = product[1];
  y[0][1] = product[2];
  y[1][1] = product[3];
}

// Computes the exponentials of a head's logits minus their maximum, not yet divided by their sum,
// for keys 0 to 7 and 8 to 15. The logits are nearly as precise as in float32: pixels are exact in
// TF32, and projected queries are split into a TF32 value and a remainder.
template <typename S>
__device__ inline void UnnormalizedSoftmax(const PixelFragment<S>& pixels, const float (&y)[2],
                                           float (&p_0)[4], float (&p_1)[4]) {
  const float upper = TruncateToTf32(y[0]), lower = TruncateToTf32(y[1]);
  const float upper_rest = y[0] - upper, lower_rest = y[1] - lower;
  MmaM16N8K8Tf32(p_0, pixels.mask_0, upper, lower, upper_rest, lower_rest, pixels.x[0],
                 pixels.x[0]);
  MmaM16N8K8Tf32(p_1, pixels.mask_1, upper, lower, upper_rest, lower_rest, pixels.x[1],
                 pixels.x[1]);
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const float max_logit = QuadMax(fmaxf(fmaxf(p_0[i], p_0[i + 1]), fmaxf(p_1[i], p_1[i + 1])));
#pragma unroll
    for (int j = i; j < i + 2; ++j) {
      p_0[j] = Exp2Approx(p_0[j] - max_logit);
      p_1[j] = Exp2Approx(p_1[j] - max_logit);
    }
  }
}

}  // namespace sasa::stem

#endif  // SASA_TF_NATIVE_CUDA_STEM_MMA_CUH_
