// Global to shared memory to registers: loads CTA tiles with their halo by TMA or cp.async, and
// reads the halo tiles of MMA tiles with ldmatrix.
#ifndef SASA_TF_NATIVE_CUDA_MMA_SMEM_LOAD_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_SMEM_LOAD_CUH_

#include <cstdint>

#include "cuda/kernel_launch.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"
#include "cuda/tma.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// A ring buffer of rows in shared memory. Consecutive tiles of a CTA overlap in kOverlapRows rows,
// which stay where they are, so that only the new rows are loaded.
template <typename Traits>
struct SmemRowBuffer {
  bool reuses_rows = false;  // whether the tile follows the one above it
  int first_slot = 0;        // of the tile's first row

  __device__ void AdvanceTile(bool follows) {
    reuses_rows = follows;
    first_slot = reuses_rows ? Slot(Traits::kTileRows) : Traits::kLeadRows;
  }
  __device__ int FirstNewRow() const { return reuses_rows ? Traits::kOverlapRows : 0; }
  // The slot of a row of the tile, counted from its first halo row.
  __device__ int Slot(int row) const {
    row += first_slot;
    return row < Traits::kBufferRows ? row : row - Traits::kBufferRows;
  }
};

// An array that tiles are loaded from.
template <typename Traits>
struct TileSource {
  const typename Traits::Element* data;
  int parts;   // that are packed in the array
  bool valid;  // false: the tile is filled with zeros
};

// The tensor maps of a kernel's two arrays, if `use_tma`.
struct TileTensorMaps {
  TensorMap first, second;
  bool use_tma;

  // Called by all threads at the start of a kernel.
  __device__ void Prefetch() const {
    if (!use_tma || threadIdx.x != 0) return;
    first.Prefetch();
    second.Prefetch();
  }
};

// Encodes the tensor maps of a kernel, if it can use TMA: `possible` is false if an array is
// missing or pooled. TMA does not support dilation, and does not pad heads.
template <typename Traits, typename Kernel>
TileTensorMaps EncodeTileTensorMaps(Kernel kernel, const LocalAttentionProblem& p, bool possible,
                                    const void* first, int first_parts, const void* second,
                                    int second_parts) {
  TileTensorMaps maps = {};
  const int64_t channels = p.heads * Traits::kHeadDim;
  const auto describe = [&](const void* data, int parts) {
    TensorMapDesc desc = {};
    desc.data = data;
    desc.images = p.batch;
    desc.height = p.height;
    desc.width = p.width;
    desc.channels = channels;
    desc.pixel_stride = channels * parts;
    desc.box_channels = 8 * Traits::kChunks;
    desc.box_columns = Traits::kSmemPitch;
    desc.box_rows = Traits::kTmaBoxRows;
    return desc;
  };
  maps.use_tma = possible && !Traits::kIsPadded && p.dilation_rows == 1 &&
                 p.dilation_columns == 1 &&
                 CompiledForSm90(reinterpret_cast<const void*>(kernel)) &&
                 EncodeTensorMap(describe(first, first_parts), maps.first) &&
                 EncodeTensorMap(describe(second, second_parts), maps.second);
  return maps;
}

// Clears both buffers if their chunks have padding, which loads do not write. `memory`: of the
// buffers. A __syncthreads must follow.
template <typename Traits>
__device__ inline void ClearPadding(char* memory) {
  if constexpr (Traits::kIsPadded) {
    for (int i = threadIdx.x; i < 2 * Traits::kBufferBytes / 16; i += Traits::kThreads) {
      reinterpret_cast<uint4*>(memory)[i] = make_uint4(0, 0, 0, 0);
    }
  }
}

// Loads the new rows of a tile with cp.async. kPooled: from d_output, which may be that of a pooled
// output.
template <typename Traits, bool kPooled = false>
__device__ inline void CpAsyncLoadTile(const TileGrid& g, const CtaTile& tile,
                                       const SmemRowBuffer<Traits>& buffer, const MmaLane& lane,
                                       const TileSource<Traits>& source, uint32_t smem) {
  using Element = typename Traits::Element;
  // A lane copies one chunk of every kPixels-th pixel of a row.
  constexpr int kPixels = kWarpSize / Traits::kChunks;
  constexpr int kIterations = CeilDiv(Traits::kSmemColumns, kPixels);
  const int warp = threadIdx.x / kWarpSize, chunk = lane.id % Traits::kChunks;
  const int column = lane.id / Traits::kChunks;
  // The strides of loads are even, so they are a whole number of pooled pixels.
  const int shift = kPooled ? g.pool_shift : 0;
  static_assert(!kPooled || (Traits::kWarps % 2 == 0 && kPixels % 2 == 0));
  const int row_step =
      (Traits::kWarps * g.row_stride * source.parts >> 2 * shift) * Traits::kHeadDim;
  const int column_step = (kPixels * g.column_stride * source.parts >> shift) * Traits::kHeadDim;
  const bool valid = source.valid && tile.head + chunk / Traits::kHeadChunks < g.heads;
  bool column_valid[kIterations];
#pragma unroll
  for (int i = 0; i < kIterations; ++i) {
    column_valid[i] = valid && tile.ColumnInImage(column + i * kPixels - Traits::kHalo);
  }
  const int first = buffer.FirstNewRow() + warp;
  const int y = first - Traits::kHalo, x = column - Traits::kHalo;
  const int64_t pixel =
      kPooled ? tile.PooledOffset(g, y, x)
              : tile.Offset(source.parts) + (y * g.row_stride + x * g.column_stride) * source.parts;
  const Element* row_data = source.data + pixel * Traits::kHeadDim +
                            chunk / Traits::kHeadChunks * Traits::kHeadDim +
                            chunk % Traits::kHeadChunks * 8;
#pragma unroll 2
  for (int row = first; row < Traits::kSmemRows; row += Traits::kWarps) {
    const bool row_valid = tile.RowInImage(row - Traits::kHalo);
    const uint32_t to =
        smem + Traits::SwizzledOffset(buffer.Slot(row) * Traits::kSmemPitch + column, chunk);
    const Element* from = row_data;
#pragma unroll
    for (int i = 0; i < kIterations; ++i) {
      if (i < kIterations - 1 || column + i * kPixels < Traits::kSmemColumns) {
        const uint32_t chunk_to =
            (to ^ i % 2 * Traits::SwizzleXor(kPixels)) + i * kPixels * Traits::kPixelBytes;
        if constexpr (Traits::kIsPadded) {
          CpAsync8(chunk_to, from, row_valid && column_valid[i]);
        } else {
          CpAsync16(chunk_to, from, row_valid && column_valid[i]);
        }
      }
      from += column_step;
    }
    row_data += row_step;
  }
}

// Loads the new rows of both tiles, whose buffers are adjacent, by TMA. Called by the first thread.
template <typename Traits>
__device__ inline void TmaLoadTiles(const CtaTile& tile, const SmemRowBuffer<Traits>& buffer,
                                    const TileTensorMaps& maps, uint32_t smem,
                                    TmaBarrier& barrier) {
  const int begin = buffer.reuses_rows ? Traits::kOverlapRows : -Traits::kLeadRows;
  const int boxes = CeilDiv(Traits::kSmemRows - begin, Traits::kTmaBoxRows);
  barrier.ArriveExpectTx(2 * Traits::kTmaBoxBytes * boxes);
  const int channel = tile.head * Traits::kHeadDim;
  const int x = tile.x - Traits::kHalo, y = tile.y - Traits::kHalo;
#pragma unroll 1
  for (int i = 0; i < boxes; ++i) {
    const int row = begin + i * Traits::kTmaBoxRows;
    const uint32_t to = smem + buffer.Slot(row) * Traits::kSmemPitch * Traits::kPixelBytes;
    TmaLoad(maps.first, barrier, to, channel, x, y + row, tile.image);
    TmaLoad(maps.second, barrier, to + Traits::kBufferBytes, channel, x, y + row, tile.image);
  }
}

// Starts the loads of both tiles. kPooled is about the second.
template <typename Traits, bool kPooled = false>
__device__ inline void StartTileLoads(const TileGrid& g, const CtaTile& tile,
                                      const SmemRowBuffer<Traits>& buffer, const MmaLane& lane,
                                      const TileTensorMaps& maps, bool use_tma,
                                      const TileSource<Traits>& first,
                                      const TileSource<Traits>& second, uint32_t smem,
                                      TmaBarrier& barrier) {
  if (use_tma) {
    if (threadIdx.x == 0) TmaLoadTiles<Traits>(tile, buffer, maps, smem, barrier);
  } else {
    CpAsyncLoadTile<Traits>(g, tile, buffer, lane, first, smem);
    CpAsyncLoadTile<Traits, kPooled>(g, tile, buffer, lane, second, smem + Traits::kBufferBytes);
  }
}

// The addresses that a lane passes to ldmatrix.x4, which loads the matrices of the two blocks of a
// step and two chunks. In the matrices of QK^T the chunks of a block are in consecutive registers
// of a B operand, in transposed ones (PV) the blocks of a chunk.
//
// The swizzle differs by a fixed XOR at a distance of four columns, so there are addresses for each
// row of blocks and the first four halo columns, which are two steps or one.
template <typename Traits, bool kTransposed>
struct LdmatrixAddresses {
  static constexpr int kStepColumns = 2 * Traits::kBlockColumns, kPeriod = 4 / kStepColumns;
  // Whether the next MMA tile is not at a multiple of four columns.
  static constexpr bool kHalfPeriod = Traits::kMmaTileColumns % 4 != 0;
  uint32_t smem[Traits::kRowBlocks][kPeriod];
  uint32_t next_xor = 0;  // of the swizzle, two columns further on

  // `top`: the first row of the halo tile, in the tile's buffer; `column`: its first column.
  // Buffer: SmemRowBuffer, or another type that maps rows to slots.
  template <typename Buffer>
  __device__ LdmatrixAddresses(uint32_t smem_begin, const Buffer& buffer, const MmaLane& lane,
                               int top, int column) {
    const int block = kTransposed ? lane.matrix_lo : lane.matrix_hi;
    const int chunk = kTransposed ? lane.matrix_hi : lane.matrix_lo;
    column += block * Traits::kBlockColumns + Traits::BlockColumn(lane.ldmatrix_row);
#pragma unroll
    for (int i = 0; i < Traits::kRowBlocks; ++i) {
      const int row = top + i * Traits::kBlockRows + Traits::BlockRow(lane.ldmatrix_row);
      const int pixel = buffer.Slot(row) * Traits::kSmemPitch + column;
#pragma unroll
      for (int step = 0; step < kPeriod; ++step) {
        smem[i][step] = smem_begin + Traits::SwizzledOffset(pixel + kStepColumns * step, chunk);
      }
      // The same for all rows of blocks, which are multiples of 8 pixels apart.
      if constexpr (kHalfPeriod && kPeriod == 1) {
        next_xor = (Traits::SwizzledOffset(pixel + 2, chunk) - 2 * Traits::kPixelBytes) ^
                   Traits::SwizzledOffset(pixel, chunk);
      }
    }
  }
  __device__ uint32_t At(int step, int chunk) const {
    const int row_step = Traits::ColumnBlock(step) / 2, columns = row_step / kPeriod * 4;
    const uint32_t first = smem[Traits::RowBlock(step)][row_step % kPeriod];
    return (first ^ Traits::SwizzleXor(columns) ^ chunk * 16) + columns * Traits::kPixelBytes;
  }
  // Advances to the next MMA tile.
  __device__ void Advance() {
    const auto advanced = [](uint32_t address, int columns, uint32_t swizzle_xor) {
      return (address ^ swizzle_xor) + columns * Traits::kPixelBytes;
    };
#pragma unroll
    for (auto& of_row : smem) {
      if constexpr (!kHalfPeriod) {
#pragma unroll
        for (auto& address : of_row) {
          address = advanced(address, Traits::kMmaTileColumns,
                             Traits::SwizzleXor(Traits::kMmaTileColumns));
        }
      } else if constexpr (kPeriod == 2) {
        const uint32_t first = of_row[0];
        of_row[0] = of_row[1];
        of_row[1] = advanced(first, 4, Traits::SwizzleXor(4));
      } else {
        of_row[0] = advanced(of_row[0], 2, next_xor);
      }
    }
    if constexpr (kHalfPeriod && kPeriod == 1) next_xor ^= Traits::SwizzleXor(4);
  }
};

// B operands of a step (keys, values; in dK/dV queries, dO): [block][chunk], pixels as rows of 8
// channels or, transposed, as columns. A missing second block is undefined.
template <typename Traits, bool kTransposed>
struct KvFragment {
  uint32_t b[2][Traits::kChunks];

  // `offset`: of the buffer from that of the addresses, in bytes.
  __device__ void Load(const LdmatrixAddresses<Traits, kTransposed>& addresses, int step,
                       int offset = 0) {
#pragma unroll
    for (int chunk = 0; chunk < Traits::kChunks; chunk += 2) {
      uint32_t matrices[4];
      const uint32_t smem = addresses.At(step, chunk) + offset;
      if constexpr (kTransposed) {
        LdmatrixX4Trans(smem, matrices);
      } else if (Traits::Blocks(step) == 2) {
        LdmatrixX4(smem, matrices);
      } else {
        LdmatrixX2(smem, matrices[0], matrices[1]);
        matrices[2] = matrices[3] = 0;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        (kTransposed ? b[i % 2][chunk + i / 2] : b[i / 2][chunk + i % 2]) = matrices[i];
      }
    }
  }
};

// sum [16, 8] += p [16, 16 pixels of a step] b [16 pixels, 8]; `b`: of the two blocks.
template <typename Traits>
__device__ inline void MmaStep(int step, const uint32_t (&p)[4], uint32_t b0, uint32_t b1,
                               float (&sum)[4]) {
  if (Traits::Blocks(step) == 2) {
    MmaM16N8K16<typename Traits::Element>(sum, p[0], p[1], p[2], p[3], b0, b1);
  } else {
    MmaM16N8K8<typename Traits::Element>(sum, p[0], p[1], b0);
  }
}

// acc [16, D] += p [16, 16 pixels of a step] v [16 pixels, D], by head; only a head's own rows are
// used.
template <typename Traits>
__device__ inline void MmaPV(int step, const uint32_t (&p)[4], const KvFragment<Traits, true>& v,
                             Accumulator<Traits>& acc) {
#pragma unroll
  for (int i = 0; i < Traits::kChunks; ++i) {
    MmaStep<Traits>(step, p, v.b[0][i], v.b[1][i],
                    acc[i / Traits::kHeadChunks][i % Traits::kHeadChunks]);
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_SMEM_LOAD_CUH_
