// The backward stem kernel in SIMT arithmetic, for all types, blocks and head widths.
#include "cuda/stem_launch.h"
#include "cuda/stem_simt.cuh"

namespace sasa::stem {
namespace {

template <typename S>
__global__ void __launch_bounds__(kThreads)
    StemSimtBackward(BlockPartition g, SmemLayout layout, const typename S::T* __restrict__ pixels,
                     const float* __restrict__ w_qk, const float* __restrict__ w_v,
                     const typename S::T* __restrict__ d_output, GradientSizes sizes,
                     float* __restrict__ partials) {
  constexpr int kChannels = S::kChannels;
  extern __shared__ __align__(128) char memory[];
  const SimtTile<S> shared{g, layout, reinterpret_cast<float*>(memory),
                           static_cast<int>(blockIdx.x) % g.heads};
  // P and dP as [key][thread].
  float* probabilities = shared.memory + layout.probabilities;
  float* dp = shared.memory + layout.dp;
  float* rows = shared.memory + layout.rows;
  const int first_tile = blockIdx.x / g.heads, step = gridDim.x / g.heads;
  float* partial = partials + static_cast<int64_t>(first_tile) * sizes.Total();
  float d_w_qk_sum[kChannels][kChannels] = {};
  for (int tile = first_tile; tile < layout.tiles; tile += step) {
    const ThreadQuery query(g, layout, tile);
    float x[kChannels], y[kChannels];
    __syncthreads();
    shared.LoadPixel(query, pixels, x);
    __syncthreads();
    float* own_p = probabilities + threadIdx.x;
    float* own_dp = dp + threadIdx.x;
    const int keys = query.inside ? layout.positions : 0;
    if (query.inside) {
      shared.ProjectQuery(x, w_qk, y);
      const float max_logit = shared.MaxLogit(y, query.block);
      float sum = 0.f;
      for (int q = 0; q < keys; ++q) {
        const float p = Exp2Approx(shared.Logit(y, query.block, q) - max_logit);
        own_p[q * kProbabilityStride] = p;
        own_dp[q * kProbabilityStride] = 0.f;
        sum += p;
      }
      const float factor = 1.f / sum;
      for (int q = 0; q < keys; ++q) own_p[q * kProbabilityStride] *= factor;
    } else {
      for (int q = 0; q < layout.positions; ++q) own_p[q * kProbabilityStride] = 0.f;
    }
    for (int slice = 0; slice < g.slices; ++slice) {
      const int first = slice * kSliceChannels;
      float d_out[kSliceChannels];
      LoadSlice(d_output + (query.pixel * g.heads + shared.head) * g.head_dim + first,
                query.inside ? g.head_dim - first : 0, d_out);
      __syncthreads();
      shared.LoadWv(w_v, slice);
#pragma unroll
      for (int d = 0; d < kSliceChannels; ++d) rows[threadIdx.x * kRowStride + d] = d_out[d];
      __syncthreads();
      for (int q = 0; q < keys; ++q) {
        float sum = 0.f;
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          const float* value = shared.Wv(q, c);
          float product = 0.f;
#pragma unroll
          for (int d = 0; d < kSliceChannels; ++d) product += value[d] * d_out[d];
          sum += product * shared.Pixel(query.block, q)[c];
        }
        own_dp[q * kProbabilityStride] += sum;
      }
      // d_w_v of four channels of a key at a time, summed over all queries of the tile.
      for (int i = threadIdx.x; i < layout.positions * kSliceChannels / 4; i += kThreads) {
        const int q = i / (kSliceChannels / 4), channel = i % (kSliceChannels / 4) * 4;
        float total[kChannels][4] = {};
        for (int block = 0; block < layout.tile_blocks; ++block) {
          const int thread = block * layout.positions;
          float products[4] = {};
          for (int t = thread; t < thread + layout.positions; ++t) {
            const float p = probabilities[q * kProbabilityStride + t];
            const float4 row = *reinterpret_cast<const float4*>(rows + t * kRowStride + channel);
            products[0] += p * row.x;
            products[1] += p * row.y;
            products[2] += p * row.z;
            products[3] += p * row.w;
          }
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
#pragma unroll
            for (int d = 0; d < 4; ++d) total[c][d] += shared.Pixel(block, q)[c] * products[d];
          }
        }
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          float* to = partial + ((q * kChannels + c) * g.heads + shared.head) * g.head_dim + first;
#pragma unroll
          for (int d = channel; d < channel + 4; ++d) {
            if (first + d < g.head_dim) {
              to[d] = (tile == first_tile ? 0.f : to[d]) + total[c][d - channel];
            }
          }
        }
      }
    }
    float delta = 0.f, sum[kChannels] = {};  // delta: rowsum(P dP)
    for (int q = 0; q < keys; ++q) {
      delta += own_p[q * kProbabilityStride] * own_dp[q * kProbabilityStride];
    }
    for (int q = 0; q < keys; ++q) {
      const float ds = own_p[q * kProbabilityStride] * (own_dp[q * kProbabilityStride] - delta);
#pragma unroll
      for (int e = 0; e < kChannels; ++e) sum[e] += ds * shared.Pixel(query.block, q)[e];
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
      for (int e = 0; e < kChannels; ++e) d_w_qk_sum[c][e] += x[c] * sum[e];
    }
  }
  // Add the threads' sums in a fixed order.
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kChannels * kChannels; ++i) {
    const float sum = WarpReduceSum<1>(d_w_qk_sum[i / kChannels][i % kChannels]);
    if (threadIdx.x % kWarpSize == 0) shared.memory[i * kWarps + threadIdx.x / kWarpSize] = sum;
  }
  __syncthreads();
  if (threadIdx.x < kChannels * kChannels) {
    float sum = 0.f;
    for (int warp = 0; warp < kWarps; ++warp) sum += shared.memory[threadIdx.x * kWarps + warp];
    partial[sizes.d_w_v + shared.head * kChannels * kChannels + threadIdx.x] = sum;
  }
}

}  // namespace

int SimtBackward(const StemProblem& p, const StemBackwardArrays& a, cudaStream_t stream) {
  int workers = 0;
  DispatchTypeAndChannels(p, [&](auto traits) {
    using S = decltype(traits);
    const BlockPartition g = PartitionIntoBlocks(p);
    const SmemLayout layout(g, S::kChannels);
    const int bytes = layout.backward_size * 4, limit = static_cast<int>(StemGpuWorkers(p));
    workers = NumWorkers(StemSimtBackward<S>, layout.tiles, g.heads, bytes, limit);
    LaunchKernel(StemSimtBackward<S>, workers * g.heads, kThreads, bytes, stream, g, layout,
                 static_cast<const typename S::T*>(a.pixels), a.w_qk, a.w_v,
                 static_cast<const typename S::T*>(a.d_output), CountGradients(p), a.workspace);
  });
  return workers;
}

}  // namespace sasa::stem
