// The forward stem kernel in SIMT arithmetic, for all types, blocks and head widths.
#include "cuda/stem_launch.h"
#include "cuda/stem_simt.cuh"

namespace sasa::stem {
namespace {

template <typename S>
__global__ void __launch_bounds__(kThreads)
    StemSimtForward(BlockPartition g, SmemLayout layout, const typename S::T* __restrict__ pixels,
                    const float* __restrict__ w_qk, const float* __restrict__ w_v,
                    typename S::T* __restrict__ output) {
  using T = typename S::T;
  extern __shared__ __align__(128) char memory[];
  const int thread_blocks_per_worker = g.heads * g.slices, slice = blockIdx.x % g.slices;
  const SimtTile<S> shared{g, layout, reinterpret_cast<float*>(memory),
                           static_cast<int>(blockIdx.x) / g.slices % g.heads};
  shared.LoadWv(w_v, slice);
  const int step = gridDim.x / thread_blocks_per_worker;
  for (int tile = blockIdx.x / thread_blocks_per_worker; tile < layout.tiles; tile += step) {
    const ThreadQuery query(g, layout, tile);
    float x[S::kChannels], y[S::kChannels];
    __syncthreads();
    shared.LoadPixel(query, pixels, x);
    __syncthreads();
    if (!query.inside) continue;
    shared.ProjectQuery(x, w_qk, y);
    const float max_logit = shared.MaxLogit(y, query.block);
    float sum = 0.f, out[kSliceChannels] = {};
    for (int q = 0; q < layout.positions; ++q) {
      const float p = Exp2Approx(shared.Logit(y, query.block, q) - max_logit);
      sum += p;
#pragma unroll
      for (int c = 0; c < S::kChannels; ++c) {
        const float weighted = p * shared.Pixel(query.block, q)[c];
        const float* value = shared.Wv(q, c);
#pragma unroll
        for (int d = 0; d < kSliceChannels; ++d) out[d] += weighted * value[d];
      }
    }
    const float factor = 1.f / sum;
#pragma unroll
    for (int d = 0; d < kSliceChannels; ++d) out[d] *= factor;
    T* to = output + (query.pixel * g.heads + shared.head) * g.head_dim + slice * kSliceChannels;
    StoreSlice(out, g.head_dim - slice * kSliceChannels, g.head_dim % 8 == 0, to);
  }
}

}  // namespace

void SimtForward(const StemProblem& p, const StemForwardArrays& a, cudaStream_t stream) {
  DispatchTypeAndChannels(p, [&](auto traits) {
    using S = decltype(traits);
    const BlockPartition g = PartitionIntoBlocks(p);
    const SmemLayout layout(g, S::kChannels);
    const int thread_blocks = g.heads * g.slices, bytes = layout.forward_size * 4;
    const int workers =
        NumWorkers(StemSimtForward<S>, layout.tiles, thread_blocks, bytes, layout.tiles);
    LaunchKernel(StemSimtForward<S>, workers * thread_blocks, kThreads, bytes, stream, g, layout,
                 static_cast<const typename S::T*>(a.pixels), a.w_qk, a.w_v,
                 static_cast<typename S::T*>(a.output));
  });
}

}  // namespace sasa::stem
