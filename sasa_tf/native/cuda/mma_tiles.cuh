// What the kernels on the tensor cores share: how images are cut into tiles, and a lane's part in
// matrix instructions.
#ifndef SASA_TF_NATIVE_CUDA_TILES_CUH_
#define SASA_TF_NATIVE_CUDA_TILES_CUH_

#include <cstdint>

#include "cuda/ptx.cuh"
#include "cuda/element_types.cuh"
#include "local_attention.h"

namespace sasa {

constexpr float kNever = -60000.f;  // as a term of a logit, in half precision
__device__ constexpr float kZeros[4] = {0.f, 0.f, 0.f, 0.f};

// Divides numbers below 2**31 by one that does not change, without a division.
struct Divisor {
  uint32_t by, factor, shift;

  Divisor() = default;
  explicit Divisor(uint32_t by) : by(by), shift(0) {
    while ((uint64_t{1} << shift) < by) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - by)) / by + 1);
  }
  // Returns the remainder; `number` becomes the quotient.
  __device__ int Take(uint32_t& number) const {
    const uint32_t quotient = (__umulhi(number, factor) + number) >> shift;
    const int remainder = number - quotient * by;
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
  Divisor head_blocks, tiles_x, tiles_y, row_phases, column_phases;
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
  g.head_blocks = Divisor(CeilDiv(g.heads, heads));
  g.tiles_x = Divisor(CeilDiv(CeilDiv(g.width, g.column_dilation), columns));
  g.tiles_y = Divisor(CeilDiv(CeilDiv(g.height, g.row_dilation), rows));
  g.row_phases = Divisor(g.row_dilation);
  g.column_phases = Divisor(g.column_dilation);
  g.tiles = static_cast<int>(p.batch) * g.row_dilation * g.column_dilation * g.tiles_y.by *
            g.tiles_x.by * g.head_blocks.by;
  return g;
}

// Maximum over the four lanes that hold a row of a matrix.
__device__ inline float RowMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// A lane's place in the fragments of the matrix instructions.
struct Lane {
  int number, row, pair;        // row of 8; pair of columns
  int matrix_row, half, upper;  // whose address it gives to ldmatrix
  __device__ Lane() {
    number = threadIdx.x % kWarp;
    row = number / 4;
    pair = number % 4;
    matrix_row = number % 8;
    half = number / 8 % 2;
    upper = number / 16;
  }
};

// The number itself, but the compiler cannot tell: it keeps the number instead of computing it anew
// wherever it is used, and in registers of its own for every `place`, as the operands of a matrix
// instruction lie in registers that follow each other.
__device__ inline uint32_t Hidden(uint32_t bits, const Lane& lane, int place) {
  const unsigned zero = __shfl_xor_sync(kAllLanes, lane.number, place % kWarp);
  return bits | zero >> (5 + place / kWarp);
}
__device__ inline float Hidden(float x, const Lane& lane, int place) {
  return __uint_as_float(Hidden(__float_as_uint(x), lane, place));
}

// sum [16, 8], all columns alike, += the sums of the rows of weights.
template <typename T>
__device__ inline void SumRows(const uint32_t (&a)[4], float (&sum)[4]) {
  const uint32_t one = Pack<T>(1.f, 1.f);
  Multiply16<T>(sum, a[0], a[1], a[2], a[3], one, one);
}

template <typename T>
__device__ inline void PackRows(const float (&low)[4], const float (&high)[4], uint32_t (&a)[4]) {
  a[0] = Pack<T>(low[0], low[1]);
  a[1] = Pack<T>(low[2], low[3]);
  a[2] = Pack<T>(high[0], high[1]);
  a[3] = Pack<T>(high[2], high[3]);
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
    head = g.head_blocks.Take(tile) * heads;
    y = g.tiles_y.Take(tile) * tile_rows;
    x = g.tiles_x.Take(tile) * tile_columns;
    const int phase_x = g.column_phases.Take(tile), phase_y = g.row_phases.Take(tile);
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
    const int head = g.head_blocks.Take(group);
    g.head_blocks.Take(groups);
    g.head_blocks.Take(places);
    const uint32_t each = places / groups, more = places % groups;
    const uint32_t first = group * each + (group < more ? group : more);
    step = g.head_blocks.by;
    begin = first * step + head;
    end = begin + (each + (group < more)) * step;
  }
};

// As many thread blocks as that takes, of those that run at a time.
inline int RunsOf(const TileGrid& g, int workers) {
  const int heads = g.head_blocks.by;
  return workers < heads ? heads : workers / heads * heads;
}

// Ends a thread block whose warps each have sums of the tables' gradients, fragments of a matrix [8
// lines of the rows, 8 of the columns][kDepth]: adds them one warp after the other, in shared
// memory of 16 kDepth floats, and stores those of lines that the tables have as the thread block's
// own.
template <int kKernel, int kDepth>
__device__ inline void StoreTableSums(const Lane& lane, const float (&sums)[kDepth / 8][4],
                                      float* memory, float* partials) {
  constexpr int kHalf = kDepth / 2, kNumbers = 2 * kKernel * kHalf;
  const int threads = blockDim.x;
  __syncthreads();
  for (int warp = 0; warp < threads / kWarp; ++warp) {
    if (threadIdx.x / kWarp == warp) {
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
