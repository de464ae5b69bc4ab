// The forward stem kernel on the tensor cores.
//
// A warp keeps its heads' value projections w_v in registers and loops over strips of blocks.
#include "cuda/stem_launch.h"
#include "cuda/stem_mma.cuh"

namespace sasa::stem {
namespace {

constexpr int kWarpHeads = 4;  // heads of a warp: 128 bytes of a pixel's output

template <typename S>
__global__ void __launch_bounds__(kThreads, kHasSpareChannel<S> ? 4 : 3)
    StemMmaForward(BlockPartition g, int head_groups, const typename S::T* __restrict__ pixels,
                   const float* __restrict__ w_qk, const float* __restrict__ w_v,
                   typename S::T* __restrict__ output) {
  using T = typename S::T;
  constexpr int kChannels = S::kChannels;
  extern __shared__ __align__(128) char memory[];
  const MmaLane lane;
  const int warp = threadIdx.x / kWarpSize;
  float* planes = reinterpret_cast<float*>(memory) + warp * kStripFloats;
  const int first_head = blockIdx.x % head_groups * kWarpHeads;
  const int step = gridDim.x / head_groups * kWarps;

  WqkFragment w_qk_fragments[kWarpHeads / 2];
#pragma unroll
  for (int i = 0; i < kWarpHeads / 2; ++i) {
    w_qk_fragments[i] = WqkFragment::Load<kChannels>(w_qk, first_head + 2 * i, g.heads, lane);
  }
  // Right-hand sides [16 positions, 16 channels] for each head and channel of the pixels. Columns
  // are permuted such that a lane gets four consecutive channels of the output.
  uint32_t w_v_fragments[kWarpHeads][kChannels][2][2];
#pragma unroll
  for (int h = 0; h < kWarpHeads; ++h) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int head = first_head + h, position = 2 * lane.pair + 8 * half;
          const int channel = lane.row / 2 * 4 + tile * 2 + lane.row % 2;
          const float* from =
              w_v + ((position * kChannels + c) * g.heads + head) * kHeadDim + channel;
          w_v_fragments[h][c][tile][half] = 0;
          if (head < g.heads) {
            w_v_fragments[h][c][tile][half] =
                PackX2<T>(__ldg(from), __ldg(from + kChannels * g.heads * kHeadDim));
          }
        }
      }
    }
  }

  const int filters = g.heads * kHeadDim;
  const float one = kHasSpareChannel<S> && lane.pair == kMaxStemChannels - 1 ? 1.f : 0.f;
  InitPlanes<S>(planes);
  PixelColumn<S> next;
  int index = blockIdx.x / head_groups * kWarps + warp;
  if (index < g.strips) next.Load(g, Strip(g, index), pixels);
  for (; index < g.strips; index += step) {
    const Strip strip(g, index);
    __syncwarp();
    next.Store(planes);
    __syncwarp();
    if (index + step < g.strips) next.Load(g, Strip(g, index + step), pixels);
    const int row = lane.row / kBlockSide, column = lane.row % kBlockSide;
    T* to = output + (strip.first_pixel + row * g.width + column) * filters +
            first_head * kHeadDim + 4 * lane.pair;
    const int lower = 2 * g.width * filters;  // from the lane's upper row to the lower one
    const int y = strip.top + row;
    for (int b = 0; b < strip.blocks; ++b, to += kBlockSide * filters) {
      const float* block = planes + b * kBlockFloats;
      const int x = strip.left + b * kBlockSide + column;
      const bool column_inside = x >= 0 && x < g.width;
      const bool inside[2] = {column_inside && y >= 0 && y < g.height,
                              column_inside && y + 2 >= 0 && y + 2 < g.height};
      const PixelFragment<S> fragment(block, lane);
      uint32_t key_pixels[kChannels][2];  // packed pairs of keys
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const float4 four =
            *reinterpret_cast<const float4*>(block + c * kPlaneFloats + 4 * lane.pair);
        key_pixels[c][0] = PackX2<T>(four.x, four.z);
        key_pixels[c][1] = PackX2<T>(four.y, four.w);
      }
#pragma unroll
      for (int pair = 0; pair < kWarpHeads / 2; ++pair) {
        if (first_head + 2 * pair >= g.heads) break;
        float q[2][2];
        ProjectQueries(fragment, w_qk_fragments[pair], one, q);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int h = 2 * pair + i;
          float p_0[4], p_1[4];
          UnnormalizedSoftmax(fragment, q[i], p_0, p_1);
          uint32_t p[4];
          PackAFragment<T>(p_0, p_1, p);
          float sum[4] = {}, out[2][4] = {};
          MmaRowSum<T>(p, sum);
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
            uint32_t weighted[4];  // probabilities times pixels
#pragma unroll
            for (int j = 0; j < 4; ++j) weighted[j] = MulX2<T>(p[j], key_pixels[c][j / 2]);
#pragma unroll
            for (int tile = 0; tile < 2; ++tile) {
              MmaM16N8K16<T>(out[tile], weighted[0], weighted[1], weighted[2], weighted[3],
                             w_v_fragments[h][c][tile][0], w_v_fragments[h][c][tile][1]);
            }
          }
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float factor = RcpApprox(sum[2 * half]);
            uint2 four;
            four.x = PackX2<T>(out[0][2 * half] * factor, out[0][2 * half + 1] * factor);
            four.y = PackX2<T>(out[1][2 * half] * factor, out[1][2 * half + 1] * factor);
            if (inside[half] && first_head + h < g.heads) {
              *reinterpret_cast<uint2*>(to + half * lower + h * kHeadDim) = four;
            }
          }
        }
      }
    }
  }
}

template <typename T>
void Launch(const StemProblem& p, const StemForwardArrays& a, cudaStream_t stream) {
  DispatchChannels<T>(p, [&](auto traits) {
    using S = decltype(traits);
    const BlockPartition g = PartitionIntoBlocks(p);
    const int head_groups = CeilDiv(g.heads, kWarpHeads), bytes = kWarps * kStripFloats * 4;
    const int work = CeilDiv(g.strips, kWarps);
    const int workers = NumWorkers(StemMmaForward<S>, work, head_groups, bytes, work);
    LaunchKernel(StemMmaForward<S>, workers * head_groups, kThreads, bytes, stream, g, head_groups,
                 static_cast<const T*>(a.pixels), a.w_qk, a.w_v, static_cast<T*>(a.output));
  });
}

}  // namespace

bool MmaSupports(const StemProblem& p) {
  return p.type != DType::kFloat32 && p.block_rows == kBlockSide && p.block_columns == kBlockSide &&
         p.head_dim == kHeadDim;
}

void MmaForward(const StemProblem& p, const StemForwardArrays& arrays, cudaStream_t stream) {
  const auto launch = p.type == DType::kBfloat16 ? Launch<Bfloat16> : Launch<Float16>;
  launch(p, arrays, stream);
}

}  // namespace sasa::stem
