// What the kernels on the tensor cores share: how images are cut into tiles, and a lane's part in
// matrix instructions.
#ifndef SASA_TF_NATIVE_CUDA_TILES_CUH_
#define SASA_TF_NATIVE_CUDA_TILES_CUH_

#include <cstdint>

#include "cuda/ptx.cuh"
#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "local_attention.h"

namespace sasa {

constexpr float kMaskedBias = -60000.f;  // as a term of a logit, in half precision

// Divides numbers below 2**31 by one that does not change, without a division.
struct FastDivmod {
  uint32_t divisor, factor, shift;

  FastDivmod() = default;
  explicit FastDivmod(uint32_t divisor) : divisor(divisor), shift(0) {
    while ((uint64_t{1} << shift) < divisor) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - divisor)) / divisor + 1);
  }
  // Returns the remainder; `number` becomes the quotient.
  __device__ int DivmodInPlace(uint32_t& number) const {
    const uint32_t quotient = (__umulhi(number, factor) + number) >> shift;
    const int remainder = number - quotient * divisor;
    number = quotient;
    return remainder;
  }
};

struct TileGrid {
  int height, width, heads;
  int row_dilation, column_dilation;
  bool mask_border, has_key, has_relative;
  float scale;
  int parts;                  // that query, key, value and their gradients share pixel by pixel
  int row_step, column_step;  // to the next pixel of the phase, counted in heads of one part
  int pool_shift;             // means are over blocks of 1 << pool_shift pixels a side
  FastDivmod head_blocks, tiles_x, tiles_y, row_phases, column_phases;
  int tiles;
};

constexpr float kShareOfMean = 0.25f;  // that an output has in the mean of 2 x 2

// Of an output in the mean that the upstream gradient is of. The kernels compute as if that were
// the sum, and multiply their gradients in the end.
__host__ __device__ inline float PoolShare(const TileGrid& g) {
  return g.pool_shift ? kShareOfMean : 1.f;
}

// For tiles of so many rows and columns of pixels, and so many heads at a time.
inline TileGrid PlanTiles(const LocalAttentionProblem& p, int rows, int columns, int heads) {
  TileGrid g = {};
  g.height = p.height;
  g.width = p.width;
  g.heads = p.heads;
  g.row_dilation = p.dilation_rows;
  g.column_dilation = p.dilation_columns;
  g.mask_border = p.mask_border;
  g.has_key = p.has_key;
  g.has_relative = p.has_relative;
  g.scale = p.scale;
  g.parts = p.qkv_parts;
  g.row_step = g.width * g.heads * g.row_dilation;
  g.column_step = g.heads * g.column_dilation;
  g.pool_shift = p.pool_size / 2;
  g.head_blocks = FastDivmod(CeilDiv(g.heads, heads));
  g.tiles_x = FastDivmod(CeilDiv(CeilDiv(g.width, g.column_dilation), columns));
  g.tiles_y = FastDivmod(CeilDiv(CeilDiv(g.height, g.row_dilation), rows));
  g.row_phases = FastDivmod(g.row_dilation);
  g.column_phases = FastDivmod(g.column_dilation);
  g.tiles = static_cast<int>(p.batch) * g.row_dilation * g.column_dilation * g.tiles_y.divisor *
            g.tiles_x.divisor * g.head_blocks.divisor;
  return g;
}

// The number itself, but the compiler cannot tell: it keeps the number instead of computing it anew
// wherever it is used, and in registers of its own for every `place`, as the operands of a matrix
// instruction lie in registers that follow each other.
__device__ inline uint32_t Hidden(uint32_t bits, const MmaLane& lane, int place) {
  const unsigned zero = __shfl_xor_sync(kFullMask, lane.id, place % kWarpSize);
  return bits | zero >> (5 + place / kWarpSize);
}
__device__ inline float Hidden(float x, const MmaLane& lane, int place) {
  return __uint_as_float(Hidden(__float_as_uint(x), lane, place));
}

// The part of the images that a thread block works on. Rows and columns are those of the phase,
// from the tile's first.
struct Area {
  int head, y, x;
  int rows, columns;  // that there are; beyond the tile too
  int image;
  int64_t first;  // pixel, counted in heads of one part from the first image's

  Area() = default;
  __device__ Area(const TileGrid& g, uint32_t tile, int tile_rows, int tile_columns, int heads) {
    head = g.head_blocks.DivmodInPlace(tile) * heads;
    y = g.tiles_y.DivmodInPlace(tile) * tile_rows;
    x = g.tiles_x.DivmodInPlace(tile) * tile_columns;
    const int phase_x = g.column_phases.DivmodInPlace(tile), phase_y = g.row_phases.DivmodInPlace(tile);
    const int row = y * g.row_dilation + phase_y, column = x * g.column_dilation + phase_x;
    rows = g.height - row;
    columns = g.width - column;
    // Rounded up; dilation is rare.
    if (g.row_dilation > 1) rows = (rows + g.row_dilation - 1) / g.row_dilation;
    if (g.column_dilation > 1) columns = (columns + g.column_dilation - 1) / g.column_dilation;
    image = tile;
    first = (static_cast<int64_t>(image) * g.height + row) * g.width + column;
    first *= g.heads;
  }
  // Of the tile's first pixel, the thread block's first head.
  __device__ int64_t First(int parts) const { return first * parts + head; }
  // Of a pixel of the tile among the means, or in the upstream gradient, which may be theirs. Of
  // images without dilation, if there are means.
  __device__ int64_t Upstream(const TileGrid& g, int i, int j) const {
    const int shift = g.pool_shift;
    if (shift == 0) return First(1) + i * g.row_step + j * g.column_step;
    const int64_t row = static_cast<int64_t>(image) * (g.height >> shift) + ((y + i) >> shift);
    return (row * (g.width >> shift) + ((x + j) >> shift)) * g.heads + head;
  }
  __device__ bool RowInside(int i) const { return y + i >= 0 && i < rows; }
  __device__ bool ColumnInside(int i) const { return x + i >= 0 && i < columns; }
};

// The tiles of a thread block: of one block of heads, as many as any other's or one more, going
// down the images. Thread blocks side by side are at the same pixels with their heads, which share
// what memory delivers at a time.
struct Run {
  int begin, end, step;

  // The number of thread blocks is a multiple of that of the blocks of heads.
  __device__ explicit Run(const TileGrid& g) {
    uint32_t group = blockIdx.x, groups = gridDim.x, places = g.tiles;
    const int head = g.head_blocks.DivmodInPlace(group);
    g.head_blocks.DivmodInPlace(groups);
    g.head_blocks.DivmodInPlace(places);
    const uint32_t each = places / groups, more = places % groups;
    const uint32_t first = group * each + (group < more ? group : more);
    step = g.head_blocks.divisor;
    begin = first * step + head;
    end = begin + (each + (group < more)) * step;
  }
};

// As many thread blocks as that takes, of those that run at a time.
inline int RunsOf(const TileGrid& g, int workers) {
  const int heads = g.head_blocks.divisor;
  return workers < heads ? heads : workers / heads * heads;
}

// Ends a thread block whose warps each have sums of the tables' gradients, fragments of a matrix [8
// lines of the rows, 8 of the columns][kDepth]: adds them one warp after the other, in shared
// memory of 16 kDepth floats, and stores those of lines that the tables have as the thread block's
// own.
template <int kKernel, int kDepth>
__device__ inline void StoreTableSums(const MmaLane& lane, const float (&sums)[kDepth / 8][4],
                                      float* memory, float* partials) {
  constexpr int kHalf = kDepth / 2, kNumbers = 2 * kKernel * kHalf;
  const int threads = blockDim.x;
  __syncthreads();
  for (int warp = 0; warp < threads / kWarpSize; ++warp) {
    if (threadIdx.x / kWarpSize == warp) {
#pragma unroll
      for (int c = 0; c < kDepth / 8; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float* to = memory + (lane.row + 8 * (i / 2)) * kDepth + 8 * c + 2 * lane.pair + i % 2;
          *to = (warp ? *to : 0.f) + sums[c][i];
        }
      }
    }
    __syncthreads();
  }
  partials += static_cast<int64_t>(blockIdx.x) * kNumbers;
  for (int i = threadIdx.x; i < kNumbers; i += threads) {
    const int line = i / kHalf, channel = i % kHalf;
    partials[i] = line < kKernel ? memory[line * kDepth + channel]
                                 : memory[(8 + line - kKernel) * kDepth + kHalf + channel];
  }
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_TILES_CUH_
