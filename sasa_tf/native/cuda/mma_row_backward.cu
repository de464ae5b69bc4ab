// Launches the backward pass of small images, see mma_row_backward.cuh.
#include "cuda/mma_row_backward.cuh"

#include <cuda_runtime.h>

#include "cuda/kernel_attributes.h"
#include "cuda/kernel_launch.cuh"
#include "cuda/launch.h"
#include "cuda/table_gradients.cuh"
#include "cuda/table_reduction.cuh"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

constexpr int kReservedSmemBytes = 1024;  // of each CTA, by the system

// The tensor map of the gradient of a pooled output. Its rows are padded to 8 columns.
template <typename Traits>
bool EncodePooledMap(const LocalAttentionProblem& p, const void* data, TensorMap& map) {
  TensorMapDesc desc = {};
  desc.data = data;
  desc.images = p.batch;
  desc.height = p.height / 2;
  desc.width = p.width / 2;
  desc.channels = desc.pixel_stride = p.heads * Traits::kHeadDim;
  desc.box_channels = Traits::kHeadDim;
  desc.box_columns = 8;
  desc.box_rows = static_cast<int>(desc.height);
  return EncodeTensorMap(desc, map);
}

// Returns false if the kernel does not support the problem.
template <typename Traits, int kWarps, int kCtas>
bool LaunchRowBackward(const LocalAttentionProblem& p, const BackwardArrays& a,
                       cudaStream_t stream) {
  const auto kernel = MmaRowBackwardKernel<Traits, kWarps, kCtas>;
  if (!CompiledForSm90(reinterpret_cast<const void*>(kernel))) return false;
  // Two stages if the CTAs of a multiprocessor have the shared memory for them.
  const int max_bytes = (MaxSmemBytes() + kReservedSmemBytes) / kCtas - kReservedSmemBytes;
  RowBackwardGrid r = MakeRowBackwardGrid<Traits>(p, 2);
  if (r.bytes > max_bytes) r = MakeRowBackwardGrid<Traits>(p, 1);
  const int tiles = r.g.row_tiles;
  if (tiles > kWarps || r.bytes > MaxSmemBytes()) return false;
  RowBackwardMaps maps = {};
  const auto encode = [&](const void* data, int parts, TensorMap& map) {
    return EncodeRowTileMap<Traits>(p, data, parts, tiles, map);
  };
  const auto encode_d_output = [&] {
    return p.pool_size == 1 ? encode(a.d_output, 1, maps.d_output)
                            : EncodePooledMap<Traits>(p, a.d_output, maps.d_output);
  };
  if (!encode(a.query, p.qkv_parts, maps.query) || !encode(a.key, p.qkv_parts, maps.key) ||
      !encode(a.value, p.qkv_parts, maps.value) || !encode(a.output, 1, maps.output) ||
      !encode_d_output()) {
    return false;
  }
  // There are warps for all parts of the tables' gradients.
  const int threads = kWarpSize * (tiles < Traits::kTableTiles ? Traits::kTableTiles : tiles);
  const int ctas = PersistentGridSize(kernel, r.g.items, threads, r.bytes, kTableWorkers);
  LaunchPdl(kernel, ctas, threads, r.bytes, stream, r, maps, a.relative_rows, a.relative_columns,
            a.lse, static_cast<Bfloat16*>(a.d_query), static_cast<Bfloat16*>(a.d_key),
            static_cast<Bfloat16*>(a.d_value), TablePartials(p, a.workspace));
  const float pool_weight = p.pool_size == 1 ? 1.f : kPoolWeight;
  LaunchTableReduction(MakeTableReduction(p, a.workspace, ctas, p.scale * pool_weight,
                                          a.d_relative_rows, a.d_relative_columns),
                       stream);
  return true;
}

// Two CTAs on a multiprocessor with images of up to 8 x 8 pixels: the fastest on an H200.
template <int kKernel, int kHeadDim>
bool LaunchForColumns(const LocalAttentionProblem& p, const BackwardArrays& a,
                      cudaStream_t stream) {
  if (p.width <= kMaxNarrowRowTileWidth && p.height <= 8) {
    using Traits = RowBackwardTraits<RowTileTraits<kKernel, kHeadDim, 8>>;
    return LaunchRowBackward<Traits, 4, 2>(p, a, stream);
  }
  using Traits = RowBackwardTraits<RowTileTraits<kKernel, kHeadDim, 16>>;
  return LaunchRowBackward<Traits, 16, 1>(p, a, stream);
}

template <int kKernel>
bool LaunchForHeads(const LocalAttentionProblem& p, const BackwardArrays& a, cudaStream_t stream) {
  return p.head_dim == 32 ? LaunchForColumns<kKernel, 32>(p, a, stream)
                          : LaunchForColumns<kKernel, 64>(p, a, stream);
}

}  // namespace

bool MmaRowBackward(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                    cudaStream_t stream) {
  if (!SupportsRowTiles(p)) return false;
  switch (p.kernel_rows) {
    case 3:
      return LaunchForHeads<3>(p, arrays, stream);
    case 5:
      return LaunchForHeads<5>(p, arrays, stream);
    default:
      return LaunchForHeads<7>(p, arrays, stream);
  }
}

}  // namespace sasa
