// What a warp computes in the backward pass of small images, see mma_row_backward.cuh: its row tile
// as queries and as keys, and a part of the tables' gradients.
#ifndef SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_WARP_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_WARP_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/mma_row_backward_grid.cuh"
#include "cuda/mma_row_bias.cuh"
#include "cuda/mma_row_table_sums.cuh"
#include "cuda/mma_row_tile.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tma.cuh"

namespace sasa {
namespace {

// An accumulator as the operand that is added.
__device__ inline const float (&Const(const float (&x)[4]))[4] { return x; }

// What a warp has of its row tile.
template <typename Traits>
struct RowBackwardWarp {
  static constexpr int kSteps = Traits::kSteps, kChunks = Traits::kHeadChunks;
  static constexpr int kPitch = Traits::kEntryPitch;
  static constexpr bool kTwoRows = Traits::kTileRows == 2;
  using Bias = RowTileBias<Traits>;
  using Accumulator = float[kChunks][4];

  const RowBackwardGrid& r;
  const RowTileGrid& g;
  char* const memory;
  const uint32_t smem;
  const MmaLane lane;
  const int warp, top;  // the warp's row tile, and its first row in the image
  const bool active;    // whether the image has the row tile
  int pixel[2];         // of the image, for the lane's row in each half of the 16 rows
  bool valid[2];
  // The lane's addresses for ldmatrix of 16 pixels: with matrices of two chunks first, or of 16
  // pixels; the latter also in dO, where pixels may be pooled.
  uint32_t by_chunk, by_pixel, d_output_by_pixel;
  uint32_t identity;  // B operand [8, 8]

  __device__ RowBackwardWarp(const RowBackwardGrid& r, char* memory)
      : r(r),
        g(r.g),
        memory(memory),
        smem(SmemAddress(memory)),
        // A shuffle, so that the compiler knows that it is uniform.
        warp(__shfl_sync(kFullMask, threadIdx.x / kWarpSize, 0)),
        top(warp * Traits::kTileRows),
        active(warp < r.g.row_tiles) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int y = top + (kTwoRows ? half : 0), x = lane.row + (kTwoRows ? 0 : 8 * half);
      pixel[half] = y * g.width + x;
      valid[half] = y < g.height && x < g.width;
    }
    by_chunk = RowTileLdmatrixOffset<Traits, false>(lane);
    by_pixel = RowTileLdmatrixOffset<Traits, true>(lane);
    d_output_by_pixel = Traits::SwizzledOffset(PooledPixel(lane.id % 16), lane.matrix_hi);
    const uint32_t one = PackX2<Bfloat16>(1.f, 1.f);
    identity = 2 * lane.pair == lane.row       ? one & 0xffffu
               : 2 * lane.pair + 1 == lane.row ? one & 0xffff0000u
                                               : 0u;
  }

  // A pixel of a row tile in dO, counted from DOutputTile. The rows of a pooled dO are padded to 8
  // columns.
  __device__ int PooledPixel(int pixel) const {
    return g.pool_shift ? pixel % Traits::kColumns / 2 : pixel;
  }
  __device__ uint32_t DOutputTile(int row_tile) const {
    const int pooled_row = kTwoRows ? row_tile : row_tile / 2;
    return (g.pool_shift ? 8 * pooled_row : 16 * row_tile) * Traits::kPixelBytes;
  }

  // -delta of the lane's rows, each twice. `outputs` and `d_outputs` are addresses of images.
  __device__ void MinusDelta(uint32_t outputs, uint32_t d_outputs, float (&minus_delta)[4]) const {
    float sums[2] = {0.f, 0.f};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane.row + 8 * half;
      const char* output = memory + (outputs - smem) + warp * Traits::kTileBytes;
      const char* d_output = memory + (d_outputs - smem) + DOutputTile(warp);
#pragma unroll
      for (int i = 0; i < kChunks / 4; ++i) {
        const uint4 a = *reinterpret_cast<const uint4*>(
            output + (Traits::SwizzledOffset(row, lane.pair) ^ 64 * i));
        const uint4 b = *reinterpret_cast<const uint4*>(
            d_output + (Traits::SwizzledOffset(PooledPixel(row), lane.pair) ^ 64 * i));
        const uint32_t o[4] = {a.x, a.y, a.z, a.w}, d_o[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float2 x = UnpackX2(o[j], Bfloat16()), y = UnpackX2(d_o[j], Bfloat16());
          sums[half] = fmaf(-x.x, y.x, fmaf(-x.y, y.y, sums[half]));
        }
      }
    }
    const float high[2] = {TruncateToTf32(sums[0]), TruncateToTf32(sums[1])};
    QuadSumTf32({high[0], sums[0] - high[0], high[1], sums[1] - high[1]}, minus_delta);
  }

  // q . table by entry, for both tables.
  __device__ void TableProducts(const RowTileFragment<Traits>& q, float (&rows)[4],
                                float (&columns)[4]) const {
    const uint32_t tables = smem + r.tables + lane.id * 16;
    uint32_t b[kChunks / 4][4];  // chunks of the row table, then of the column table
#pragma unroll
    for (int i = 0; i < kChunks / 4; ++i) LdmatrixX4(tables + i * 512, b[i]);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const bool is_first = i % Traits::kTableSteps == 0;
      float(&sum)[4] = i < Traits::kTableSteps ? rows : columns;
      MmaM16N8K16<Bfloat16>(sum, is_first ? kZeros : Const(sum), q[i][0], q[i][1], q[i][2], q[i][3],
                            b[i / 2][i % 2 * 2], b[i / 2][i % 2 * 2 + 1]);
    }
  }

  // The staging area as floats by table entry: the lane's two entries of its row in the first half
  // of the queries, or with entry 0.
  __device__ static float* Entry(char* staging, const MmaLane& lane, int entry) {
    return reinterpret_cast<float*>(staging) + entry * kPitch + lane.row;
  }
  // The entry of the column table for key `i` of an accumulator over a block of columns.
  __device__ int ColumnEntry(int block, int i) const {
    return 8 * block + 2 * lane.pair + i % 2 - lane.row - (kTwoRows ? 0 : i / 2 * 8) +
           Traits::kHalo;
  }
  __device__ static bool IsEntry(int entry) {
    return static_cast<unsigned>(entry) < Traits::kKernel;
  }

  // Calls `f` with each block and element of accumulators over a row of keys, and its column entry.
  template <typename Function>
  __device__ void ForEachColumn(const Function& f) const {
#pragma unroll
    for (int block = 0; block < Traits::kBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < 4; ++i) f(block, i, ColumnEntry(block, i));
    }
  }

  // The column part of the bias, from table entries to columns of keys.
  __device__ void ColumnBias(char* staging, const float (&entries)[4],
                             float (&bias)[Traits::kBlocks][4]) const {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Entry(staging, lane, 2 * lane.pair + i % 2)[i / 2 * 8] = entries[i];
    }
    __syncwarp();
    ForEachColumn([&](int block, int i, int entry) {
      const bool in_image = 8 * block + 2 * lane.pair + i % 2 < g.width;
      bias[block][i] =
          IsEntry(entry) && in_image ? Entry(staging, lane, entry)[i / 2 * 8] : kMaskedLogit;
    });
    __syncwarp();
  }
  // Stores the row part of the exponents by entry, with masks. A __syncwarp must follow.
  __device__ void StoreRowPart(char* staging, const float (&entries)[4]) const {
    constexpr int kMargin = Traits::kEntryMargin;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      // With two rows in a tile, the row after the image's last one may be computed too.
      const bool in_image = !kTwoRows || Bias::EntryRow(lane, i, top) < g.height;
      Entry(staging, lane, 2 * lane.pair + i % 2 + kMargin)[i / 2 * 8] =
          Bias::IsEntry(lane, i) && in_image ? entries[i] : kMaskedLogit;
    }
    if constexpr (kMargin > 0) {
      float* const margin = reinterpret_cast<float*>(staging) + lane.id % 16;
      margin[lane.id / 16 * kPitch] = kMaskedLogit;
      margin[(kMargin + 8) * kPitch] = kMaskedLogit;
    }
  }
  // Adds sums of dS by column of keys to those by table entry.
  __device__ void AddColumnSums(char* staging, const float (&by_key)[Traits::kBlocks][4],
                                float (&by_entry)[4]) const {
    __syncwarp();
    ForEachColumn([&](int block, int i, int entry) {
      if (IsEntry(entry)) Entry(staging, lane, entry)[i / 2 * 8] = by_key[block][i];
    });
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (Bias::ColumnInside(g, lane, i)) {
        by_entry[i] += Entry(staging, lane, 2 * lane.pair + i % 2)[i / 2 * 8];
      }
    }
  }

  // Stores `acc` times `scale` by way of the staging area. `offset`: of the lane's first 8
  // channels, of its row in each half.
  __device__ void Store(const Accumulator& acc, float scale, char* staging,
                        const uint32_t (&offset)[2], Bfloat16* array) const {
    // [16 pixels][4 chunks], swizzled as 32 channels are by TMA.
    const auto swizzled = [](int pixel, int chunk) {
      return pixel * 64 + (chunk ^ pixel / 2 % 4) * 16;
    };
    const uint32_t to = SmemAddress(staging) + swizzled(lane.id % 16, lane.matrix_hi);
    const char* from = staging + swizzled(lane.row, lane.pair);
#pragma unroll
    for (int round = 0; round < kChunks / 4; ++round) {
      __syncwarp();
#pragma unroll
      for (int c = 0; c < 4; c += 2) {
        const float(&left)[4] = acc[4 * round + c];
        const float(&right)[4] = acc[4 * round + c + 1];
        StmatrixX4(to ^ 16 * c, PackX2<Bfloat16>(left[0] * scale, left[1] * scale),
                   PackX2<Bfloat16>(left[2] * scale, left[3] * scale),
                   PackX2<Bfloat16>(right[0] * scale, right[1] * scale),
                   PackX2<Bfloat16>(right[2] * scale, right[3] * scale));
      }
      __syncwarp();
      const uint4 pieces[2] = {*reinterpret_cast<const uint4*>(from),
                               *reinterpret_cast<const uint4*>(from + 8 * 64)};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (valid[half]) {
          *reinterpret_cast<uint4*>(array + offset[half] + 32 * round) = pieces[half];
        }
      }
    }
  }

  // dQ of the row tile, without the tables' part; the sums of dS by row entry (with two rows in a
  // tile, those of the second are one further) and by column of keys. Stores P and dS.
  __device__ void AttendKeys(const RowTileFragment<Traits>& q, const RowTileFragment<Traits>& d_out,
                             const float (&column_bias)[Traits::kBlocks][4],
                             const float (&minus_delta)[4], char* staging, float scale_log2,
                             Accumulator& dq, float (&row_sums)[4],
                             float (&column_sums)[Traits::kBlocks][4]) const {
    const StoredKeyRows rows = r.keys[warp];
    const int steps = (rows.end - rows.begin) / Traits::kTileRows;
    int entry = rows.begin - top + Traits::kHalo;
    const float* row_part = Entry(staging, lane, entry + Traits::kEntryMargin);
    uint32_t keys = smem + rows.begin * Traits::kColumns * Traits::kPixelBytes;
    uint32_t weights =
        smem + r.p + rows.weights + rows.begin * Traits::kKeyRowBytes + lane.id * 16;
#pragma unroll 2
    for (int step = 0; step < steps; ++step) {
      float p[2][4], ds[2][4];
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        uint32_t k[4];
        LdmatrixX4(keys + (by_chunk ^ 32 * i), k);
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          const float(&c)[4] =
              i == 0 ? column_bias[block % Traits::kBlocks] : Const(p[block]);
          MmaM16N8K16<Bfloat16>(p[block], c, q[i][0], q[i][1], q[i][2], q[i][3], k[2 * block],
                                k[2 * block + 1]);
        }
      }
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        uint32_t v[4];
        LdmatrixX4(keys + r.image_bytes + (by_chunk ^ 32 * i), v);
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          const float(&c)[4] = i == 0 ? minus_delta : Const(ds[block]);
          MmaM16N8K16<Bfloat16>(ds[block], c, d_out[i][0], d_out[i][1], d_out[i][2], d_out[i][3],
                                v[2 * block], v[2 * block + 1]);
        }
      }
#pragma unroll
      for (int block = 0; block < 2; ++block) {
        // With two rows in a tile, a block is a row of keys, and the second row's window begins one
        // further down.
        constexpr int kNext = kTwoRows ? kPitch : 0;
        const float of_half[2] = {row_part[block * kNext], row_part[(block - 1) * kNext + 8]};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          p[block][i] = Exp2Approx(fmaf(p[block][i], scale_log2, of_half[i / 2]));
          ds[block][i] *= p[block][i];
        }
      }
      uint32_t p_a[4], ds_a[4];
      PackAFragment<Bfloat16>(p[0], p[1], p_a);
      PackAFragment<Bfloat16>(ds[0], ds[1], ds_a);
      StmatrixX4(weights, p_a[0], p_a[1], p_a[2], p_a[3]);
      StmatrixX4(weights + (r.ds - r.p), ds_a[0], ds_a[1], ds_a[2], ds_a[3]);
      MmaByPixels(keys, by_pixel, ds_a, dq);
      const uint32_t one = PackX2<Bfloat16>(1.f, 1.f);
      const uint32_t first_row = entry == lane.row ? one : 0u;
      const uint32_t second_row = kTwoRows ? (entry + 1 == lane.row ? one : 0u) : first_row;
      MmaM16N8K16<Bfloat16>(row_sums, ds_a[0], ds_a[1], ds_a[2], ds_a[3], first_row, second_row);
      if constexpr (kTwoRows) {
        MmaM16N8K16<Bfloat16>(column_sums[0], ds_a[0], ds_a[1], ds_a[2], ds_a[3], identity,
                              identity);
      } else {
        MmaM16N8K8<Bfloat16>(column_sums[0], ds_a[0], ds_a[1], identity);
        MmaM16N8K8<Bfloat16>(column_sums[1], ds_a[2], ds_a[3], identity);
      }
      entry += Traits::kTileRows;
      row_part += Traits::kTileRows * kPitch;
      keys += 16 * Traits::kPixelBytes;
      weights += Traits::kStepBytes;
    }
  }

  // acc [16, D] += a [16, 16 pixels] b [16 pixels, D]; `b` is the address of pixels, and `offset`
  // the lane's.
  __device__ static void MmaByPixels(uint32_t b, uint32_t offset, const uint32_t (&a)[4],
                                     Accumulator& acc) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      uint32_t chunks[4];
      LdmatrixX4Trans(b + (offset ^ 32 * i), chunks);
      MmaM16N8K16<Bfloat16>(acc[2 * i], a[0], a[1], a[2], a[3], chunks[0], chunks[1]);
      MmaM16N8K16<Bfloat16>(acc[2 * i + 1], a[0], a[1], a[2], a[3], chunks[2], chunks[3]);
    }
  }

  // The first phase, for queries whose LSE is `query_lse`: dQ without its scale. `table_sums`: of
  // all row tiles, where the sums of dS by table entry are stored. `keys_full`: the mbarrier whose
  // phase of parity `keys_parity` is waited for.
  __device__ void ComputeQueries(uint32_t queries, uint32_t outputs, uint32_t d_outputs,
                                 uint32_t table_sums, const float (&query_lse)[2],
                                 const Mbarrier& keys_full, unsigned keys_parity, char* staging,
                                 Accumulator& dq) const {
    const float scale_log2 = g.scale * kLog2E;
    float minus_delta[4], rows[4], columns[4], column_bias[Traits::kBlocks][4];
    MinusDelta(outputs, d_outputs, minus_delta);
    RowTileFragment<Traits> q, d_out;
    LoadRowTile<Traits>(queries + warp * Traits::kTileBytes, by_pixel, q);
    LoadRowTile<Traits>(d_outputs + DOutputTile(warp), d_output_by_pixel, d_out);
    TableProducts(q, rows, columns);
    ColumnBias(staging, columns, column_bias);
    // Of the exponents.
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      rows[i] = fmaf(rows[i], scale_log2, -kLog2E * query_lse[i / 2]);
      columns[i] *= scale_log2;
    }
    StoreRowPart(staging, rows);
    // Of dS, by table entry. Zero, unless delta is not finite.
    float row_sums[4], column_sums[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) row_sums[i] = column_sums[i] = 0.f * minus_delta[i];
    if (r.has_relative && !g.mask_border) {
      AddOutsideSums<Traits>(g, lane, top, rows, columns, minus_delta, row_sums, column_sums);
    }
    __syncwarp();
    keys_full.Wait(keys_parity);
    float sums_by_row[4] = {}, sums_by_key[Traits::kBlocks][4] = {};
    AttendKeys(q, d_out, column_bias, minus_delta, staging, scale_log2, dq, sums_by_row,
               sums_by_key);
    if (!r.has_relative) return;
    if constexpr (kTwoRows) {
      const float next = __shfl_down_sync(kFullMask, sums_by_row[2], 1);
      sums_by_row[2] = sums_by_row[3];
      sums_by_row[3] = lane.pair == 3 ? 0.f : next;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) row_sums[i] += sums_by_row[i];
    AddColumnSums(staging, sums_by_key, column_sums);
    uint32_t sums[4];
    PackAFragment<Bfloat16>(row_sums, column_sums, sums);
    StmatrixX4(table_sums + warp * Traits::kSumPitch + lane.id * 16, sums[0], sums[1], sums[2],
               sums[3]);
    const uint32_t tables = smem + r.tables + lane.id * 16;
#pragma unroll
    for (int c = 0; c < kChunks; c += 4) {
      uint32_t b[4];
      LdmatrixX4Trans(tables + c * 128, b);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int table = 2 * (c + i) / kChunks;
        MmaM16N8K8<Bfloat16>(dq[c + i], sums[2 * table], sums[2 * table + 1], b[i]);
      }
    }
  }

  // The second phase: dK and dV without their scales.
  __device__ void ComputeKeys(uint32_t queries, uint32_t d_outputs, Accumulator& dk,
                              Accumulator& dv) const {
    // The row tiles of queries, the first one rounded down.
    constexpr int kRows = Traits::kTileRows;
    const int begin = max(0, (top - Traits::kHalo + 16) / kRows - 16 / kRows);
    const int end = min(g.row_tiles, (top + kRows - 1 + Traits::kHalo) / kRows + 1);
    // Matrices [8 queries, 8 keys]: the block of keys changes first.
    const uint32_t matrix = lane.matrix_hi * 128 + lane.ldmatrix_row * 16;
    const uint32_t own = smem + r.p + top * Traits::kKeyRowBytes + lane.matrix_lo * 256 + matrix;
#pragma unroll 1
    for (int tile = begin; tile < end; ++tile) {
      const StoredKeyRows& rows = r.keys[tile];
      uint32_t p = own + rows.weights, ds = p + (r.ds - r.p);
      if constexpr (kTwoRows) {
        const int row = top + lane.matrix_lo;
        if (row < rows.begin || row >= rows.end) p = ds = smem + r.zeros + lane.ldmatrix_row * 16;
      }
      uint32_t p_a[4], ds_a[4];
      LdmatrixX4Trans(p, p_a);
      LdmatrixX4Trans(ds, ds_a);
      MmaByPixels(d_outputs + DOutputTile(tile), d_output_by_pixel, p_a, dv);
      MmaByPixels(queries + tile * Traits::kTileBytes, by_pixel, ds_a, dk);
    }
  }

  // The warp's part of the tables' gradients: 16 channels of half of the row tiles, or less.
  __device__ int TableTile() const { return warp % Traits::kTableTiles; }
  // gradient [16 channels, 8 entries] += Q^T dS.
  __device__ void AddTableGradient(uint32_t queries, uint32_t table_sums,
                                   float (&gradient)[4]) const {
    const int first = warp / Traits::kTableTiles, warps = blockDim.x / kWarpSize;
    const int step = (warps - TableTile() + Traits::kTableTiles - 1) / Traits::kTableTiles;
    const int table = 2 * TableTile() / Traits::kTableTiles;
    const uint32_t sums = table_sums + 256 * table + lane.id % 16 * 16;
#pragma unroll 1
    for (int tile = first; tile < g.row_tiles; tile += step) {
      uint32_t a[4], b[2];
      LdmatrixX4Trans(queries + tile * Traits::kTileBytes + (by_chunk ^ 32 * TableTile()), a);
      LdmatrixX2Trans(sums + tile * Traits::kSumPitch, b[0], b[1]);
      MmaM16N8K16<Bfloat16>(gradient, a[0], a[1], a[2], a[3], b[0], b[1]);
    }
  }
  // Adds the warps' parts and writes the CTA's partial sum. Ends the kernel.
  __device__ void StoreTablePartials(const float (&gradient)[4], float* partials) const {
    float* const parts = reinterpret_cast<float*>(memory);  // [warp][16 channels][8 entries]
    const int warps = blockDim.x / kWarpSize;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      parts[warp * 128 + (lane.row + i / 2 * 8) * 8 + 2 * lane.pair + i % 2] = gradient[i];
    }
    __syncthreads();
    constexpr int kHalf = Traits::kHeadDim / 2, kRowElements = Traits::kKernel * kHalf;
    partials += static_cast<int64_t>(blockIdx.x) * 2 * kRowElements;
    for (int i = threadIdx.x; i < 2 * kRowElements; i += blockDim.x) {
      const int of_table = i % kRowElements, entry = of_table / kHalf;
      const int channel = i / kRowElements * kHalf + of_table % kHalf;
      float sum = 0.f;
      for (int w = channel / 16; w < warps; w += Traits::kTableTiles) {
        sum += parts[w * 128 + channel % 16 * 8 + entry];
      }
      partials[i] = sum;
    }
  }

  // Converts the tables [K, D/2]; zeros without relative positions. A __syncthreads must follow.
  __device__ void FillTables(const float* row_table, const float* column_table) const {
    constexpr int kHalf = Traits::kHeadDim / 2;
    Bfloat16* const tables = reinterpret_cast<Bfloat16*>(memory + r.tables);
    for (int i = threadIdx.x; i < Traits::kTableBytes / 2; i += blockDim.x) {
      const int entry = i / 8 % 8, channel = i / 64 * 8 + i % 8;
      const float* table = channel < kHalf ? row_table : column_table;
      const bool valid = r.has_relative && entry < Traits::kKernel;
      tables[i] = ConvertTo<Bfloat16>(valid ? table[entry * kHalf + channel % kHalf] : 0.f);
    }
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_BACKWARD_WARP_CUH_
