// The backward stem kernel on the tensor cores.
//
// A warp keeps its heads' w_v and the sums of their gradients in registers, and loops over strips
// of blocks. d_output is copied to shared memory ahead of its use.
#include "cuda/stem_launch.h"
#include "cuda/stem_mma.cuh"

namespace sasa::stem {
namespace {

constexpr int kWarpHeads = 2;  // heads of a warp: as many as registers allow

// A pipeline stage in shared memory is a block's d_output, [16 pixels][32 channels], in chunks of 8
// channels that are swizzled such that the 8 rows of a matrix are in different banks.
constexpr int kStages = 4;
constexpr int kStageBytes = kPositions * kWarpHeads * kHeadDim * 2;

// Shared memory of a warp.
constexpr int kWarpBytes = kStripFloats * 4 + kStages * kStageBytes;

// Copies a warp's blocks of d_output asynchronously, one block per call of `Issue`. A lane copies 8
// channels of two pixels of each block.
template <typename S>
struct DOutputPipeline {
  using T = typename S::T;
  const T *d_output, *from;  // `from`: at the lane's upper pixel of the block
  int chunk, pixel;
  int strip, blocks;  // blocks that remain in the strip
  int x;
  bool head_inside, row_inside[2];

  __device__ DOutputPipeline(const BlockPartition& g, const T* all, int first_head,
                             int first_strip) {
    chunk = threadIdx.x % kWarpSize % 4;
    pixel = threadIdx.x % kWarpSize / 4;
    head_inside = first_head + chunk / 2 < g.heads;
    d_output = all + first_head * kHeadDim;
    BeginStrip(g, first_strip);
  }
  __device__ void BeginStrip(const BlockPartition& g, int index) {
    strip = index;
    if (strip >= g.strips) return;
    const Strip now(g, strip);
    const int row = pixel / kBlockSide, column = pixel % kBlockSide, y = now.top + row;
    blocks = now.blocks;
    x = now.left + column;
    row_inside[0] = head_inside && y >= 0 && y < g.height;
    row_inside[1] = head_inside && y + 2 >= 0 && y + 2 < g.height;
    from = d_output + (now.first_pixel + row * g.width + column) * g.heads * kHeadDim + chunk * 8;
  }
  // Issues the copies of the next block, if any, as one group.
  __device__ void Issue(const BlockPartition& g, int step, uint32_t stage) {
    if (strip < g.strips) {
      const bool column_inside = x >= 0 && x < g.width;
      const int filters = g.heads * kHeadDim;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool inside = column_inside && row_inside[half];
        const uint32_t to = stage + (pixel + 8 * half) * 64 + (chunk ^ (pixel / 2)) * 16;
        CpAsync16(to, inside ? from + half * 2 * g.width * filters : d_output, inside);
      }
      from += kBlockSide * filters;
      x += kBlockSide;
      if (--blocks == 0) BeginStrip(g, strip + step);
    }
    CpAsyncCommitGroup();
  }
};

template <typename S>
__global__ void __launch_bounds__(kThreads, kHasSpareChannel<S> ? 3 : 2)
    StemMmaBackward(BlockPartition g, int head_groups, const typename S::T* __restrict__ pixels,
                    const float* __restrict__ w_qk, const float* __restrict__ w_v,
                    const typename S::T* __restrict__ d_output, GradientSizes sizes,
                    float* __restrict__ partials) {
  using T = typename S::T;
  constexpr int kChannels = S::kChannels;
  extern __shared__ __align__(128) char memory[];
  const MmaLane lane;
  const int warp = threadIdx.x / kWarpSize;
  float* planes = reinterpret_cast<float*>(memory + warp * kWarpBytes);
  const uint32_t stages = SmemAddress(planes + kStripFloats);
  const int first_head = blockIdx.x % head_groups * kWarpHeads;
  const int step = gridDim.x / head_groups * kWarps;

  const WqkFragment w_qk_fragment = WqkFragment::Load<kChannels>(w_qk, first_head, g.heads, lane);
  // w_v [16 positions, 16 channels], transposed, as right-hand sides.
  uint32_t w_v_fragments[kWarpHeads][kChannels][2][2];
#pragma unroll
  for (int h = 0; h < kWarpHeads; ++h) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int head = first_head + h, position = lane.row + 8 * tile;
          const float* from = w_v + ((position * kChannels + c) * g.heads + head) * kHeadDim +
                              2 * lane.pair + 8 * half;
          w_v_fragments[h][c][tile][half] = 0;
          if (head < g.heads) {
            w_v_fragments[h][c][tile][half] = PackX2<T>(__ldg(from), __ldg(from + 1));
          }
        }
      }
    }
  }
  // Sums over all blocks: d_w_v as fragments [16 positions, 16 channels] for each channel of the
  // pixels; and of the lane's queries, d_w_qk [the query's channel][the key's, the lane's pair].
  float d_w_v_sum[kWarpHeads][kChannels][2][4] = {};
  float d_w_qk_sum[kWarpHeads][kChannels] = {};

  const int matrix_row = lane.ldmatrix_row + 8 * lane.matrix_lo;
  const uint32_t matrix = matrix_row * 64 + (lane.matrix_hi ^ (matrix_row / 2 % 4)) * 16;
  const float one = kHasSpareChannel<S> && lane.pair == kMaxStemChannels - 1 ? 1.f : 0.f;
  InitPlanes<S>(planes);
  PixelColumn<S> next;
  int index = blockIdx.x / head_groups * kWarps + warp;
  uint32_t stage = 0;
  DOutputPipeline<S> pipeline(g, d_output, first_head, index);
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) pipeline.Issue(g, step, stages + i * kStageBytes);
  if (index < g.strips) next.Load(g, Strip(g, index), pixels);
  for (; index < g.strips; index += step) {
    const int blocks = Strip(g, index).blocks;
    __syncwarp();
    next.Store(planes);
    if (index + step < g.strips) next.Load(g, Strip(g, index + step), pixels);
    for (int b = 0; b < blocks; ++b) {
      CpAsyncWaitGroup<kStages - 2>();
      __syncwarp();
      pipeline.Issue(g, step, stages + (stage + kStages - 1) % kStages * kStageBytes);
      const uint32_t d_output_smem = stages + stage * kStageBytes;
      stage = (stage + 1) % kStages;
      const float* block = planes + b * kBlockFloats;
      const PixelFragment<S> fragment(block, lane);
      float x[2][kChannels];  // pixels of the lane's rows
      uint32_t x_twice[2][kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const float2 two =
            *reinterpret_cast<const float2*>(block + c * kPlaneFloats + 2 * lane.row);
        x[0][c] = two.x;
        x[1][c] = two.y;
        x_twice[0][c] = PackX2<T>(two.x, two.x);
        x_twice[1][c] = PackX2<T>(two.y, two.y);
      }
      // Right-hand side of products over the keys: column 2 c is channel c of the pixels, and the
      // odd columns are ones, for row sums.
      const float4 key_columns = *reinterpret_cast<const float4*>(
          block + (lane.row % 2 ? kOnesPlane : lane.row / 2) * kPlaneFloats + 4 * lane.pair);
      const auto sum_over_keys = [&](const float(&a_0)[4], const float(&a_1)[4], float(&sum)[4]) {
        MmaM16N8K8Tf32(sum, kZeros, a_0[0], a_0[2], a_0[1], a_0[3], key_columns.x, key_columns.z);
        MmaM16N8K8Tf32(sum, sum, a_1[0], a_1[2], a_1[1], a_1[3], key_columns.y, key_columns.w);
      };
      float y[2][2];
      ProjectQueries(fragment, w_qk_fragment, one, y);
#pragma unroll
      for (int h = 0; h < kWarpHeads; ++h) {
        float p_0[4], p_1[4], mean[4];  // mean: of the pixels, weighted by the probabilities
        UnnormalizedSoftmax(fragment, y[h], p_0, p_1);
        sum_over_keys(p_0, p_1, mean);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float factor = RcpApprox(mean[2 * half + 1]);
          mean[2 * half] *= factor;
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            p_0[i] *= factor;
            p_1[i] *= factor;
          }
        }
        uint32_t p[4], d_out[4], d_out_transposed[4];
        PackAFragment<T>(p_0, p_1, p);
        LdmatrixX4(d_output_smem + (matrix ^ h * 32), d_out);
        LdmatrixX4Trans(d_output_smem + (matrix ^ h * 32), d_out_transposed);

        // d_w_v += (P^T times pixels) d_output.
        const uint32_t p_transposed[4] = {Movmatrix(p[0]), Movmatrix(p[2]), Movmatrix(p[1]),
                                          Movmatrix(p[3])};
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          uint32_t weighted[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) weighted[j] = MulX2<T>(p_transposed[j], x_twice[j % 2][c]);
#pragma unroll
          for (int tile = 0; tile < 2; ++tile) {
            MmaM16N8K16<T>(d_w_v_sum[h][c][tile], weighted[0], weighted[1], weighted[2],
                           weighted[3], d_out_transposed[2 * tile], d_out_transposed[2 * tile + 1]);
          }
        }

        // dP = d_output V^T, with the values V = x w_v computed here.
        float dp[2][4];
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
          uint32_t v[2];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            v[half] = MulX2<T>(w_v_fragments[h][0][tile][half], x_twice[tile][0]);
#pragma unroll
            for (int c = 1; c < kChannels; ++c) {
              v[half] = FmaX2<T>(w_v_fragments[h][c][tile][half], x_twice[tile][c], v[half]);
            }
          }
          MmaM16N8K16<T>(dp[tile], kZeros, d_out[0], d_out[1], d_out[2], d_out[3], v[0], v[1]);
        }
        float sum[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          dp[0][i] *= p_0[i];
          dp[1][i] *= p_1[i];
        }
        sum_over_keys(dp[0], dp[1], sum);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          // dS x = (P dP) x - rowsum(P dP) (P x), where dS = P (dP - rowsum(P dP)).
          const float ds_x = fmaf(-sum[2 * half + 1], mean[2 * half], sum[2 * half]);
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
            d_w_qk_sum[h][c] = fmaf(x[half][c], ds_x, d_w_qk_sum[h][c]);
          }
        }
      }
    }
  }

  // Add the warps' sums in shared memory, in the order of the warps.
  __syncthreads();
  float* total = reinterpret_cast<float*>(memory);
  constexpr int kHeadFloats = kPositions * kChannels * kHeadDim;
  for (int turn = 0; turn < kWarps; ++turn) {
    if (warp == turn) {
#pragma unroll
      for (int h = 0; h < kWarpHeads; ++h) {
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            const int position = lane.row + i % 4 / 2 * 8;
            const int channel = i / 4 * 8 + 2 * lane.pair + i % 2;
            float* to = total + h * kHeadFloats + (position * kChannels + c) * kHeadDim + channel;
            *to = (turn ? *to : 0.f) + d_w_v_sum[h][c][i / 4][i % 4];
          }
          const float sum = WarpReduceSum<4>(d_w_qk_sum[h][c]);
          if (lane.row == 0 && lane.pair < kChannels) {
            float* to =
                total + kWarpHeads * kHeadFloats + (h * kChannels + c) * kChannels + lane.pair;
            *to = (turn ? *to : 0.f) + sum;
          }
        }
      }
    }
    __syncthreads();
  }
  float* to = partials + static_cast<int64_t>(blockIdx.x / head_groups) * sizes.Total();
  for (int i = threadIdx.x; i < kWarpHeads * kHeadFloats; i += kThreads) {
    const int h = i / kHeadFloats, row = i % kHeadFloats / kHeadDim, channel = i % kHeadDim;
    if (first_head + h < g.heads) {
      to[(row * g.heads + first_head + h) * kHeadDim + channel] = total[i];
    }
  }
  constexpr int kSquare = kChannels * kChannels;
  for (int i = threadIdx.x; i < kWarpHeads * kSquare; i += kThreads) {
    if (first_head + i / kSquare < g.heads) {
      to[sizes.d_w_v + first_head * kSquare + i] = total[kWarpHeads * kHeadFloats + i];
    }
  }
}

template <typename T>
int Launch(const StemProblem& p, const StemBackwardArrays& a, cudaStream_t stream) {
  int workers = 0;
  DispatchChannels<T>(p, [&](auto traits) {
    using S = decltype(traits);
    const BlockPartition g = PartitionIntoBlocks(p);
    const int limit = static_cast<int>(StemGpuWorkers(p));
    const int head_groups = CeilDiv(g.heads, kWarpHeads), bytes = kWarps * kWarpBytes;
    workers = NumWorkers(StemMmaBackward<S>, CeilDiv(g.strips, kWarps), head_groups, bytes, limit);
    LaunchKernel(StemMmaBackward<S>, workers * head_groups, kThreads, bytes, stream, g, head_groups,
                 static_cast<const T*>(a.pixels), a.w_qk, a.w_v, static_cast<const T*>(a.d_output),
                 CountGradients(p), a.workspace);
  });
  return workers;
}

}  // namespace

int MmaBackward(const StemProblem& p, const StemBackwardArrays& arrays, cudaStream_t stream) {
  const auto launch = p.type == DType::kBfloat16 ? Launch<Bfloat16> : Launch<Float16>;
  return launch(p, arrays, stream);
}

}  // namespace sasa::stem
