// The tile scheduler of the tensor core kernels: how images are divided into CTA tiles, and which
// tiles a persistent CTA computes.
//
// With dilation, the pixels of equal row and column modulo the dilation form a phase, an image of
// its own to which the windows are not dilated. A tile lies within one phase.
#ifndef SASA_TF_NATIVE_CUDA_TILE_SCHEDULER_CUH_
#define SASA_TF_NATIVE_CUDA_TILE_SCHEDULER_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "local_attention.h"

namespace sasa {

// Divides integers below 2**31 by a fixed divisor with a multiplication and a shift.
struct FastDivmod {
  uint32_t divisor, multiplier, shift;

  FastDivmod() = default;
  constexpr explicit FastDivmod(uint32_t divisor) : divisor(divisor), multiplier(0), shift(0) {
    while ((uint64_t{1} << shift) < divisor) ++shift;
    multiplier = static_cast<uint32_t>(
        ((uint64_t{1} << 32) * ((uint64_t{1} << shift) - divisor)) / divisor + 1);
  }
  // Replaces `value` by the quotient and returns the remainder.
  __device__ int DivmodInPlace(uint32_t& value) const {
    const uint32_t quotient = (__umulhi(value, multiplier) + value) >> shift;
    const int remainder = value - quotient * divisor;
    value = quotient;
    return remainder;
  }
};

// The problem as the kernels need it, and its division into tiles.
struct TileGrid {
  int height, width, heads;
  int dilation_rows, dilation_columns;
  bool mask_border, has_key, has_relative;
  float scale;
  int qkv_parts;
  int row_stride, column_stride;  // to the next pixel of a phase, in heads of one part
  int pool_shift;                 // log2 of the pool size
  FastDivmod head_groups, tile_columns, tile_rows, row_phases, column_phases;
  int num_tiles;
};

constexpr float kPoolWeight = 0.25f;  // of an output in the average over 2 x 2 pixels

// The weight of an output in the pooled output that d_output is the gradient of. The backward
// kernels use d_output as if outputs were summed, and scale their results by this.
__host__ __device__ inline float PoolWeight(const TileGrid& g) {
  return g.pool_shift ? kPoolWeight : 1.f;
}

constexpr TileGrid MakeTileGrid(const LocalAttentionProblem& p, int tile_rows, int tile_columns,
                             int tile_heads) {
  TileGrid g = {};
  g.height = p.height;
  g.width = p.width;
  g.heads = p.heads;
  g.dilation_rows = p.dilation_rows;
  g.dilation_columns = p.dilation_columns;
  g.mask_border = p.mask_border;
  g.has_key = p.has_key;
  g.has_relative = p.has_relative;
  g.scale = p.scale;
  g.qkv_parts = p.qkv_parts;
  g.row_stride = g.width * g.heads * g.dilation_rows;
  g.column_stride = g.heads * g.dilation_columns;
  g.pool_shift = p.pool_size / 2;
  g.head_groups = FastDivmod(CeilDiv(g.heads, tile_heads));
  g.tile_columns = FastDivmod(CeilDiv(CeilDiv(g.width, g.dilation_columns), tile_columns));
  g.tile_rows = FastDivmod(CeilDiv(CeilDiv(g.height, g.dilation_rows), tile_rows));
  g.row_phases = FastDivmod(g.dilation_rows);
  g.column_phases = FastDivmod(g.dilation_columns);
  g.num_tiles = static_cast<int>(p.batch) * g.dilation_rows * g.dilation_columns *
                g.tile_rows.divisor * g.tile_columns.divisor * g.head_groups.divisor;
  return g;
}

// A tile of a CTA. Rows and columns are those of the phase.
struct CtaTile {
  int head, y, x;               // of the first head and pixel
  int rows_left, columns_left;  // from the first pixel to the end of the image
  int image;
  int64_t origin;  // the first pixel's offset, in heads of one part

  CtaTile() = default;
  __device__ CtaTile(const TileGrid& g, uint32_t tile, int tile_rows, int tile_columns,
                     int tile_heads) {
    head = g.head_groups.DivmodInPlace(tile) * tile_heads;
    y = g.tile_rows.DivmodInPlace(tile) * tile_rows;
    x = g.tile_columns.DivmodInPlace(tile) * tile_columns;
    const int phase_x = g.column_phases.DivmodInPlace(tile);
    const int phase_y = g.row_phases.DivmodInPlace(tile);
    const int row = y * g.dilation_rows + phase_y, column = x * g.dilation_columns + phase_x;
    rows_left = g.height - row;
    columns_left = g.width - column;
    // Rounded up. Branches, as dilation is rare.
    if (g.dilation_rows > 1) rows_left = (rows_left + g.dilation_rows - 1) / g.dilation_rows;
    if (g.dilation_columns > 1) {
      columns_left = (columns_left + g.dilation_columns - 1) / g.dilation_columns;
    }
    image = tile;
    origin = (static_cast<int64_t>(image) * g.height + row) * g.width + column;
    origin *= g.heads;
  }
  // Offset of the first pixel's first head in an array of `parts` parts, in heads.
  __device__ int64_t Offset(int parts) const { return origin * parts + head; }
  // Offset of pixel (i, j) of the tile in d_output, or in the pooled output. Pooling excludes
  // dilation.
  __device__ int64_t PooledOffset(const TileGrid& g, int i, int j) const {
    const int shift = g.pool_shift;
    if (shift == 0) return Offset(1) + i * g.row_stride + j * g.column_stride;
    const int64_t row = static_cast<int64_t>(image) * (g.height >> shift) + ((y + i) >> shift);
    return (row * (g.width >> shift) + ((x + j) >> shift)) * g.heads + head;
  }
  // Whether a row or column, counted from the tile's first, lies in the image.
  __device__ bool RowInImage(int i) const { return y + i >= 0 && i < rows_left; }
  __device__ bool ColumnInImage(int i) const { return x + i >= 0 && i < columns_left; }
};

// The tiles of a persistent CTA: begin, begin + step, ... below end. They are of one group of heads
// and go down the images, so that consecutive tiles share halo rows. CTAs with neighboring indices
// compute the head groups of the same pixels at the same time, which share cache lines.
struct PersistentTileRange {
  int begin, end, step;

  // gridDim.x must be a multiple of the number of head groups.
  __device__ explicit PersistentTileRange(const TileGrid& g) {
    uint32_t worker = blockIdx.x, workers = gridDim.x, tiles = g.num_tiles;
    const int group = g.head_groups.DivmodInPlace(worker);
    g.head_groups.DivmodInPlace(workers);
    g.head_groups.DivmodInPlace(tiles);
    const uint32_t each = tiles / workers, remainder = tiles % workers;
    const uint32_t first = worker * each + (worker < remainder ? worker : remainder);
    step = g.head_groups.divisor;
    begin = first * step + group;
    end = begin + (each + (worker < remainder)) * step;
  }
};

// Rounds a number of CTAs to a multiple of the number of head groups.
inline int RoundToHeadGroups(const TileGrid& g, int ctas) {
  const int groups = g.head_groups.divisor;
  return ctas < groups ? groups : ctas / groups * groups;
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_TILE_SCHEDULER_CUH_
