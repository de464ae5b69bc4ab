// The backward pass of small images: the problem as the kernel needs it, and the shared memory.
#ifndef SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_GRID_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_GRID_CUH_

#include <cuda_runtime.h>

#include "cuda/mma_row_tile.cuh"
#include "cuda/tma.cuh"
#include "limits.h"
#include "local_attention.h"

namespace sasa {
namespace {

template <typename Traits>
struct RowBackwardTraits : Traits {
  // P of a step, 16 queries and 16 keys in bf16: matrices [8 queries, 8 keys], the queries' half
  // changes first. A row of keys has all matrices or those of one half.
  static constexpr int kStepBytes = 16 * 16 * 2;
  static constexpr int kKeyRowBytes = kStepBytes / Traits::kTileRows;
  // A warp's staging area: results [16 pixels][32 channels], or floats [entry of a table][16
  // queries], with padding against bank conflicts. Row tiles of two rows have entries for rows of
  // keys that are in the window of the other row.
  static constexpr int kStagingBytes = 16 * 64, kEntryPitch = 20;
  static constexpr int kEntryMargin = Traits::kTileRows == 2 ? 2 : 0;
  static_assert((kEntryMargin + 9) * kEntryPitch * 4 <= kStagingBytes);
  // The staging area takes the place of the row tile's outputs. So do the sums of dS by table entry
  // [2 tables][16 queries][8 entries], where there is space.
  static constexpr int kSumBytes = 2 * 16 * 8 * 2;
  static constexpr bool kSumsInOutputs = kStagingBytes + kSumBytes <= Traits::kTileBytes;
  static constexpr int kSumPitch = kSumsInOutputs ? Traits::kTileBytes : kSumBytes;
  // The tables [2 tables][chunk][8 entries][8 channels], the row table first.
  static constexpr int kTableBytes = Traits::kHeadChunks * 8 * 16;
  static constexpr int kTableTiles = Traits::kHeadDim / 16;  // products of their gradients
};

// The rows of keys that a row tile has weights of, a whole number of steps; and where its P and dS
// begin, less the place that rows of keys before its first would take. Computed by the host: nvcc
// 13.0 can omit the remainder of an unrolled loop whose bounds are a minimum and a maximum.
struct StoredKeyRows {
  int begin, end, weights;
};

struct RowBackwardGrid {
  RowTileGrid g;
  bool has_relative;
  int num_heads, qkv_parts;
  int image_bytes, d_output_bytes;  // of an image in shared memory
  int query_stages;                 // 1 or 2 buffers of queries, outputs and dO
  StoredKeyRows keys[kMaxRowTileSide];  // by row tile
  // The shared memory: keys and values at 0; queries, outputs and dO; P; dS; sums of dS by table
  // entry, if they have no other place; tables; a row of zeros; mbarriers.
  int queries, p, ds, sums, tables, zeros, barriers, bytes;
};

template <typename Traits>
RowBackwardGrid MakeRowBackwardGrid(const LocalAttentionProblem& p, int query_stages) {
  RowBackwardGrid r = {};
  r.g = MakeRowTileGrid<Traits>(p);
  r.has_relative = p.has_relative;
  r.num_heads = static_cast<int>(p.heads);
  r.qkv_parts = p.qkv_parts;
  r.image_bytes = r.g.row_tiles * Traits::kTileBytes;
  r.d_output_bytes = p.pool_size == 1 ? r.image_bytes
                                      : static_cast<int>(p.height) / 2 * 8 * Traits::kPixelBytes;
  r.query_stages = query_stages;
  int weights = 0;
  for (int i = 0; i < r.g.row_tiles; ++i) {
    const int top = i * Traits::kTileRows, height = r.g.height;
    StoredKeyRows& keys = r.keys[i];
    keys.begin = top < Traits::kHalo ? 0 : top - Traits::kHalo;
    keys.end = top + Traits::kTileRows + Traits::kHalo;
    if (keys.end > height) keys.end = height;
    if ((keys.end - keys.begin) % Traits::kTileRows != 0) {
      // One more, of weights that are zero.
      keys.begin > 0 ? --keys.begin : ++keys.end;
    }
    keys.weights = weights - keys.begin * Traits::kKeyRowBytes;
    weights += (keys.end - keys.begin) * Traits::kKeyRowBytes;
  }
  r.queries = 2 * r.image_bytes;
  r.p = r.queries + query_stages * (2 * r.image_bytes + r.d_output_bytes);
  r.ds = r.p + weights;
  r.sums = r.ds + weights;
  r.tables = r.sums + (Traits::kSumsInOutputs ? 0 : r.g.row_tiles * Traits::kSumBytes);
  r.zeros = r.tables + Traits::kTableBytes;
  r.barriers = r.zeros + 8 * 16;
  r.bytes = r.barriers + 3 * Mbarrier::kBytes;
  return r;
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_GRID_CUH_
