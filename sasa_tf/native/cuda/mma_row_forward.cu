// Launches the forward pass of small images, see mma_row_forward.cuh.
#include <cuda_runtime.h>

#include "cuda/kernel_attributes.h"
#include "cuda/kernel_launch.cuh"
#include "cuda/launch.h"
#include "cuda/mma_row_forward.cuh"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

template <typename Traits, typename Config>
__global__ void __launch_bounds__(RowForwardLayout<Traits, Config>::kThreads,
                                  Config::kTiles.min_ctas_per_sm)
    RowForwardKernel(RowTileGrid g, const __grid_constant__ RowForwardMaps maps,
                     const float* __restrict__ relative_rows,
                     const float* __restrict__ relative_columns, bool store_output,
                     float* __restrict__ lse, Bfloat16* __restrict__ pooled_output) {
  extern __shared__ __align__(1024) char memory[];
  RowForwardCta<Traits, Config>(g, maps, memory, relative_rows, relative_columns, store_output, lse,
                                pooled_output);
}

template <typename Traits>
bool EncodeMaps(const RowTileGrid& g, const LocalAttentionProblem& p, const ForwardArrays& a,
                RowForwardMaps& maps) {
  const auto encode = [&](const void* data, TensorMap& map) {
    return EncodeRowTileMap<Traits>(p, data, p.qkv_parts, g.row_tiles, map);
  };
  return encode(a.query, maps.query) && encode(a.key, maps.key) && encode(a.value, maps.value) &&
         (a.output == nullptr || EncodeRowTileMap<Traits>(p, a.output, 1, 1, maps.output));
}

template <typename Traits, typename Config>
bool LaunchRowForward(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  using Layout = RowForwardLayout<Traits, Config>;
  const auto kernel = RowForwardKernel<Traits, Config>;
  const RowTileGrid g = MakeRowTileGrid<Traits>(p);
  RowForwardMaps maps = {};
  if (!CompiledForSm90(reinterpret_cast<const void*>(kernel))) return false;
  if (!EncodeMaps<Traits>(g, p, a, maps)) return false;
  const int bytes = Layout(g).bytes;
  const int ctas = PersistentGridSize(kernel, g.items, Layout::kThreads, bytes, g.items);
  LaunchPdl(kernel, ctas, Layout::kThreads, bytes, stream, g, maps,
            p.has_relative ? a.relative_rows : nullptr,
            p.has_relative ? a.relative_columns : nullptr, a.output != nullptr, a.lse,
            static_cast<Bfloat16*>(a.pooled_output));
  return true;
}

// Tuned on an H200, with images of 14 x 14 and 7 x 7 pixels.
template <int kColumns>
struct RowForwardConfig {
  static constexpr RowForwardTiles kTiles =
      kColumns == 16 ? RowForwardTiles{8, 2} : RowForwardTiles{4, 4};
};

template <int kKernel>
bool LaunchKernelSize(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  const auto launch = p.head_dim == 32
                          ? LaunchRowForward<RowTileTraits<kKernel, 32, 16>, RowForwardConfig<16>>
                      : p.width > kMaxNarrowRowTileWidth
                          ? LaunchRowForward<RowTileTraits<kKernel, 64, 16>, RowForwardConfig<16>>
                          : LaunchRowForward<RowTileTraits<kKernel, 64, 8>, RowForwardConfig<8>>;
  return launch(p, a, stream);
}

}  // namespace

bool MmaRowForward(const LocalAttentionProblem& p, const ForwardArrays& arrays, bool always,
                   cudaStream_t stream) {
  if (!SupportsRowTiles(p) || (!always && !IsRowForwardFaster(p))) return false;
  switch (p.kernel_rows) {
    case 3:
      return LaunchKernelSize<3>(p, arrays, stream);
    case 5:
      return LaunchKernelSize<5>(p, arrays, stream);
    default:
      return LaunchKernelSize<7>(p, arrays, stream);
  }
}

}  // namespace sasa
