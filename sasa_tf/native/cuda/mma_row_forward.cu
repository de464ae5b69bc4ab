// Launches the forward pass for small images, see mma_row_forward.cuh.
#include <cuda_runtime.h>

#include "cuda/kernel_launch.cuh"
#include "cuda/launch.h"
#include "cuda/mma_row_forward.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

template <typename Traits, typename Config, bool kPooled>
__global__ void __launch_bounds__(RowForwardLayout<Traits, Config>::kThreads,
                                  Config::kConfig.min_ctas_per_sm)
    RowForwardKernel(RowTileGrid g, const __grid_constant__ RowForwardMaps maps,
                     const float* __restrict__ relative_rows,
                     const float* __restrict__ relative_columns, bool store_output,
                     float* __restrict__ lse, Bfloat16* __restrict__ pooled_output) {
  extern __shared__ __align__(1024) char memory[];
  RowForwardCta<Traits, Config, kPooled>(g, maps, memory, relative_rows, relative_columns,
                                         store_output, lse, pooled_output);
}

template <typename Traits, typename Config, bool kPooled>
bool LaunchRows(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  using Layout = RowForwardLayout<Traits, Config>;
  constexpr RowForwardConfig kConfig = Config::kConfig;
  const auto kernel = RowForwardKernel<Traits, Config, kPooled>;
  const RowTileGrid g = MakeRowTileGrid<Traits>(p);
  RowForwardMaps maps;
  if (!CompiledForSm90(reinterpret_cast<const void*>(kernel)) ||
      !EncodeRowTileMap<Traits>(p, a.query, p.qkv_parts, g.row_tiles, maps.query) ||
      !EncodeRowTileMap<Traits>(p, a.key, p.qkv_parts, g.row_tiles, maps.key) ||
      !EncodeRowTileMap<Traits>(p, a.value, p.qkv_parts, g.row_tiles, maps.value) ||
      (a.output != nullptr &&
       !EncodeRowTileMap<Traits>(p, a.output, 1, 1, maps.output))) {
    return false;
  }
  const int bytes = Layout::Bytes(g);
  int ctas = PersistentGridSize(kernel, g.items, Layout::kThreads, bytes, g.items);
  if (!kConfig.persistent) ctas = g.items;
  LaunchPdl(kernel, ctas, Layout::kThreads, bytes, stream, g, maps,
            p.has_relative ? a.relative_rows : nullptr,
            p.has_relative ? a.relative_columns : nullptr, a.output != nullptr, a.lse,
            static_cast<Bfloat16*>(a.pooled_output));
  return true;
}

#ifndef SASA_ROW_CONFIG
#define SASA_ROW_CONFIG {8, 2, 2, true, 0}
#endif
struct Config {
  static constexpr RowForwardConfig kConfig = SASA_ROW_CONFIG;
};

template <int kKernel, int kHeadDim, int kColumns>
bool LaunchPool(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  using Traits = RowTileTraits<kKernel, kHeadDim, kColumns>;
  return p.pool_size == 1 ? LaunchRows<Traits, Config, false>(p, a, stream)
                          : LaunchRows<Traits, Config, true>(p, a, stream);
}
template <int kKernel, int kHeadDim>
bool LaunchWidth(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  return p.width <= 8 ? LaunchPool<kKernel, kHeadDim, 8>(p, a, stream)
                      : LaunchPool<kKernel, kHeadDim, 16>(p, a, stream);
}
template <int kKernel>
bool LaunchKernelSize(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
#ifdef SASA_ROW_VARIANT
  if (p.head_dim == 32) return LaunchPool<kKernel, 32, 16>(p, a, stream);
#endif
#ifndef SASA_ROW_VARIANT
  if (p.head_dim == 32) return LaunchWidth<kKernel, 32>(p, a, stream);
#endif
  return LaunchWidth<kKernel, 64>(p, a, stream);
}

}  // namespace

bool MmaRowForward(const LocalAttentionProblem& p, const ForwardArrays& a, bool always,
                   cudaStream_t stream) {
  if (p.type != DType::kBfloat16 || (p.head_dim != 32 && p.head_dim != 64) || !p.has_key ||
      p.dilation_rows != 1 || p.dilation_columns != 1 || p.height > kMaxRowTileSide ||
      p.width > kMaxRowTileSide || p.kernel_rows > 7 || p.kernel_rows != p.kernel_columns) {
    return false;
  }
  if (!always) return false;
  if (p.kernel_rows == 3) return LaunchKernelSize<3>(p, a, stream);
#ifdef SASA_ROW_VARIANT
  if (p.kernel_rows == 5) return false;
#else
  if (p.kernel_rows == 5) return LaunchKernelSize<5>(p, a, stream);
#endif
  return LaunchKernelSize<7>(p, a, stream);
}

}  // namespace sasa
