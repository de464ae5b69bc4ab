// The projections inside of kernels: query, key and value of a CTA's heads from their input x, with
// the weights of these heads in shared memory. For narrow heads, without biases.
//
// Each lane loads its part of the channels of its pixels to registers, 16 bytes at a time. The
// products sum over the channels in the order in which lanes hold them, so no element moves between
// lanes. The forward and the backward pass round the same sums.
#ifndef SASA_TF_NATIVE_CUDA_MMA_PROJECTION_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_PROJECTION_CUH_

#include <cstdint>

#include "cuda/mma_fragment.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// Traits_: MmaKernelTraits. kChannels_: of x. kGroups_: groups of 16 pixels that a warp projects at
// a time; more have more registers.
template <typename Traits_, int kChannels_, int kGroups_>
struct ProjectionShape {
  using Traits = Traits_;
  using Element = typename Traits::Element;
  static constexpr int kChannels = kChannels_, kGroups = kGroups_, kHalves = 2 * kGroups;
  static constexpr int kParts = 3;
  static constexpr int kPieces = kChannels / 32;             // of 64 bytes of a pixel
  static constexpr int kOutputs = kParts * Traits::kChunks;  // groups of 8 outputs, by part
  static constexpr int kWeightBytes = kOutputs * 8 * kChannels * 2;
  static_assert(Traits::kTileHeads == 2 && Traits::kHeadChunks == 1 && !Traits::kIsPadded &&
                kChannels % 32 == 0);
};

// The weights [C, 3, N, D] of a CTA's heads as B operands: [group of 8 outputs][32 channels]
// [output][channel], of which a lane loads 8 channels at once.
template <typename P>
__device__ inline void FillProjectionWeights(const TileGrid& g, int head,
                                             const typename P::Element* __restrict__ kernel,
                                             char* weights) {
  using Traits = typename P::Traits;
  uint16_t* to = reinterpret_cast<uint16_t*>(weights);
  const int part_stride = g.heads * Traits::kHeadDim;
  for (int i = threadIdx.x; i < P::kChannels * P::kOutputs; i += Traits::kThreads) {
    const int channel = i / P::kOutputs, output = i % P::kOutputs;
    const int part = output / Traits::kChunks, chunk = output % Traits::kChunks;
    uint4 bits = make_uint4(0, 0, 0, 0);
    if (head + chunk < g.heads) {
      bits = __ldg(reinterpret_cast<const uint4*>(
          kernel + (channel * P::kParts + part) * part_stride + (head + chunk) * 8));
    }
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      to[((output * P::kPieces + channel / 32) * 8 + n) * 32 + channel % 32] =
          static_cast<uint16_t>(words[n / 2] >> n % 2 * 16);
    }
  }
}

// Where the lane's B operands begin in the weights.
__device__ inline const char* LaneWeights(const MmaLane& lane, const char* weights) {
  return weights + lane.row * 64 + lane.pair * 16;
}

// The products of 8 outputs, number `output` of them, of kGroups times 16 pixels. `a`: the lane's
// channels of its pixels.
template <typename P>
__device__ __forceinline__ void MmaProjection(const char* lane_weights, int output,
                                              const uint4 (&a)[P::kHalves][P::kPieces],
                                              float (&acc)[P::kGroups][4]) {
  using Element = typename P::Element;
#pragma unroll
  for (int piece = 0; piece < P::kPieces; ++piece) {
    const uint4 b =
        *reinterpret_cast<const uint4*>(lane_weights + (output * P::kPieces + piece) * 512);
#pragma unroll
    for (int j = 0; j < P::kGroups; ++j) {
      const uint4 &first = a[2 * j][piece], &second = a[2 * j + 1][piece];
      const auto& sum = piece == 0 ? kZeros : const_cast<const float(&)[4]>(acc[j]);
      MmaM16N8K16<Element>(acc[j], sum, first.x, second.x, first.y, second.y, b.x, b.y);
      MmaM16N8K16<Element>(acc[j], first.z, second.z, first.w, second.w, b.z, b.w);
    }
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_PROJECTION_CUH_
