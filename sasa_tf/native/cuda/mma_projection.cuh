// The projections inside of kernels: query, key and value of a CTA's heads from their input x, with
// the weights of these heads in shared memory. For narrow heads, without biases.
//
// A product has the 16 outputs of a part (the channels of two heads) as rows, from the transposed
// weights as the A operand, and 8 pixels as columns. Each lane loads its part of the channels of a
// pixel to registers, 16 bytes at a time. The products sum over the channels in the order in which
// lanes hold them, so these registers are B operands: no element moves between lanes or registers.
// stmatrix transposes the results. The forward and the backward pass round the same sums.
#ifndef SASA_TF_NATIVE_CUDA_MMA_PROJECTION_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_PROJECTION_CUH_

#include <cstdint>

#include "cuda/mma_fragment.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// The rows of the product of the queries, which stmatrix stores in this order: the channels of the
// first head and of the second, or each pair of channels of both heads.
enum class QueryOrder { kHeads, kPairs };

// Traits_: MmaKernelTraits. kChannels_: of x.
template <typename Traits_, int kChannels_, QueryOrder kQueryOrder_>
struct ProjectionShape {
  using Traits = Traits_;
  using Element = typename Traits::Element;
  static constexpr int kChannels = kChannels_;
  static constexpr QueryOrder kQueryOrder = kQueryOrder_;
  static constexpr int kParts = 3;
  static constexpr int kPixels = 8;                  // of a product
  static constexpr int kPieces = kChannels / 32;     // of 64 bytes of a pixel
  static constexpr int kStepBytes = kWarpSize * 16;  // of the A operand of 16 channels
  static constexpr int kPartBytes = 2 * kPieces * kStepBytes;
  static constexpr int kWeightBytes = kParts * kPartBytes;
  static_assert(Traits::kTileHeads == 2 && Traits::kHeadChunks == 1 && !Traits::kIsPadded &&
                kChannels % 32 == 0);

  // The row of channel `n` of a head in the product of a part.
  __device__ static int Row(int part, int head, int n) {
    if (part > 0 || kQueryOrder == QueryOrder::kHeads) return head * 8 + n;
    return n / 2 * 4 + head * 2 + n % 2;
  }
};

// The weights [C, 3, N, D] of a CTA's heads as A operands: [part][16 channels][lane][register].
template <typename P>
__device__ inline void FillProjectionWeights(const TileGrid& g, int head,
                                             const typename P::Element* __restrict__ kernel,
                                             char* weights) {
  using Traits = typename P::Traits;
  constexpr int kOutputs = P::kParts * Traits::kChunks;  // groups of 8
  const int part_stride = g.heads * Traits::kHeadDim;
  for (int i = threadIdx.x; i < P::kChannels * kOutputs; i += Traits::kThreads) {
    const int channel = i / kOutputs, output = i % kOutputs;
    const int part = output / Traits::kChunks, chunk = output % Traits::kChunks;
    uint4 bits = make_uint4(0, 0, 0, 0);
    if (head + chunk < g.heads) {
      bits = __ldg(reinterpret_cast<const uint4*>(
          kernel + (channel * P::kParts + part) * part_stride + (head + chunk) * 8));
    }
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
    // A lane loads 8 channels of x at once: those of two steps.
    const int step = channel / 32 * 2 + channel / 4 % 2, pair = channel / 8 % 4;
    char* of_step = weights + part * P::kPartBytes + step * P::kStepBytes;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int row = P::Row(part, chunk, n);
      const int lane = row % 8 * 4 + pair, a = row / 8 + channel / 2 % 2 * 2;
      reinterpret_cast<uint16_t*>(of_step)[lane * 8 + a * 2 + channel % 2] =
          static_cast<uint16_t>(words[n / 2] >> n % 2 * 16);
    }
  }
}

// The projections of kTiles times 8 pixels, as matrices of 8 outputs and 8 pixels, by part and half
// of its rows. `pixels`: the lane's channels of its kTiles pixels.
template <typename P, int kTiles>
__device__ __forceinline__ void MmaProjection(const char* weights, const MmaLane& lane,
                                              const uint4 (*pixels)[P::kPieces],
                                              uint32_t (&matrices)[kTiles][P::kParts][2]) {
  using Element = typename P::Element;
  float acc[kTiles][P::kParts][4];
  // A sum's products wait for one another, but not for those of other sums.
#pragma unroll
  for (int step = 0; step < 2 * P::kPieces; ++step) {
#pragma unroll
    for (int part = 0; part < P::kParts; ++part) {
      const uint4 a = *reinterpret_cast<const uint4*>(weights + part * P::kPartBytes +
                                                      step * P::kStepBytes + lane.id * 16);
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const uint4& b = pixels[i][step / 2];
        float(&sum)[4] = acc[i][part];
        MmaM16N8K16<Element>(sum, step == 0 ? kZeros : const_cast<const float(&)[4]>(sum), a.x, a.y,
                             a.z, a.w, step % 2 ? b.z : b.x, step % 2 ? b.w : b.y);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int part = 0; part < P::kParts; ++part) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        matrices[i][part][half] =
            PackX2<Element>(acc[i][part][2 * half], acc[i][part][2 * half + 1]);
      }
    }
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_PROJECTION_CUH_
