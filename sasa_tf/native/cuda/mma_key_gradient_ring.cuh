// dK and dV of the one-pass backward kernel: the sums over rows of queries, in shared memory.
#ifndef SASA_TF_NATIVE_CUDA_MMA_KEY_GRADIENT_RING_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_KEY_GRADIENT_RING_CUH_

#include <cstdint>

#include "cuda/mma_fragment.cuh"
#include "cuda/mma_traits.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// What a CTA of the one-pass kernel computes: the heads of an MMA tile in an image.
struct KeyRegion {
  int image, head;
};

// The dK and dV of a step of two blocks, 16 keys, by chunk: accumulators.
template <typename Traits>
struct KeyGradients {
  float dk[Traits::kChunks][4], dv[Traits::kChunks][4];
};

// The float32 sums of the keys of each column that are in the halo tile of the row of MMA tiles
// that is computed there. The next row of MMA tiles, kFinishedRows pixels further down, adds to all
// but the first of these rows of keys, and takes the place of those with its last ones. So a ring of
// as many rows as a halo tile has is enough, if the rows of MMA tiles follow one another in each
// column.
//
// [column][chunk][slot][pair of channels] of {dK, dK, dV, dV}. The pairs are swizzled by chunk, so
// that neither adding to the rows of a block nor reading two rows of all chunks has bank conflicts.
template <typename Traits>
struct KeyGradientRing {
  using Element = typename Traits::Element;
  static constexpr int kColumns = Traits::kTileColumns;
  static constexpr int kSlots = Traits::kHaloRows, kSlotBytes = 64;
  static constexpr int kChunkBytes = kSlots * kSlotBytes;
  static constexpr int kColumnBytes = Traits::kChunks * kChunkBytes;
  static constexpr int kBytes = kColumns * kColumnBytes;
  static constexpr int kFinishedRows = Traits::kMmaTileRows;
  static constexpr int kStoreColumns = 8 / kFinishedRows;  // that the warp stores at once
  static_assert(Traits::kRowBlocks == 1 && Traits::kChunks == 2 && kSlots % kFinishedRows == 0);

  unsigned columns;  // of the image
  bool is_new;       // whether the lane's row has no sums yet
  int own_column;    // the lane's in a block, relative to the image
  char* own_row;     // the lane's row and column in the first block of the row's first MMA tile
  // The finished rows: the lane stores half a chunk of one of 8 pixels.
  int finished_column;            // the lane's, in the image
  int finished_slot, first_slot;  // of the lane's row, and of the halo tile's first
  const char* finished_pixels;    // of the lane's column and chunk
  int half, chunk, y;             // of the chunk; y: the row in the image
  bool has_head;
  uint32_t offset, column_stride, row_stride;  // in dK and dV, of the lane's first pixel

  // For a row of MMA tiles; `row` counts them from the top of the image.
  __device__ KeyGradientRing(char* smem, const TileGrid& g, const KeyRegion& region, int row,
                             const MmaLane& lane)
      : columns(g.width),
        is_new(row == 0 || Traits::BlockRow(lane.row) >= kSlots - kFinishedRows),
        own_column(Traits::BlockColumn(lane.row) - Traits::kHalo) {
    first_slot = row * kFinishedRows % kSlots;
    own_row = smem + own_column * kColumnBytes +
              (first_slot + Traits::BlockRow(lane.row)) % kSlots * kSlotBytes;
    half = lane.id % 2;
    chunk = lane.id / 4 % 2;
    // 8 lanes have two rows of a column, which lie in different banks.
    const int pixels = lane.id / 8, next_rows = pixels / kStoreColumns;
    finished_column = pixels - next_rows * kStoreColumns - Traits::kHalo;
    finished_slot = lane.id / 2 % 2 + 2 * next_rows;
    finished_pixels = smem + finished_column * kColumnBytes + chunk * kChunkBytes;
    y = row * kFinishedRows - Traits::kHalo + finished_slot;
    const int head = region.head + chunk / Traits::kHeadChunks;
    has_head = head < g.heads;
    column_stride = g.qkv_parts * g.heads * Traits::kHeadDim;
    row_stride = g.width * column_stride;
    offset = (region.image * g.height + y) * row_stride +
             finished_column * column_stride + head * Traits::kHeadDim +
             chunk % Traits::kHeadChunks * 8 + half * 4;
  }
  // Adds the gradients of `kBlocks` blocks, the first of which begins at column `left` of the row's
  // halo. The sums are read first, as the compiler does not know that they are different ones.
  template <int kBlocks, int kSteps>
  __device__ void Add(int left, const MmaLane& lane,
                      const KeyGradients<Traits> (&gradients)[kSteps]) const {
    constexpr int kChunks = Traits::kChunks;
    constexpr int kBlockBytes = Traits::kBlockColumns * kColumnBytes;
    char* block = own_row + left * kColumnBytes;
    float4 sums[kBlocks][kChunks];
    bool valid[kBlocks];
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      valid[i] = static_cast<unsigned>(left + i * Traits::kBlockColumns + own_column) < columns;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        sums[i][c] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (valid[i] && !is_new) {
          sums[i][c] = *reinterpret_cast<const float4*>(
              block + i * kBlockBytes + c * kChunkBytes + (lane.pair ^ c) * 16);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const KeyGradients<Traits>& step = gradients[i / 2];
        float4& sum = sums[i][c];
        sum.x += step.dk[c][i % 2 * 2];
        sum.y += step.dk[c][i % 2 * 2 + 1];
        sum.z += step.dv[c][i % 2 * 2];
        sum.w += step.dv[c][i % 2 * 2 + 1];
        if (valid[i]) {
          *reinterpret_cast<float4*>(block + i * kBlockBytes + c * kChunkBytes +
                                     (lane.pair ^ c) * 16) = sum;
        }
      }
    }
  }
  // Stores the kFinishedRows rows number `group` of the halo tile, as far as they lie in the image,
  // of the kStoreColumns columns from column `left` of the row's halo on.
  __device__ void Store(const TileGrid& g, int left, int group, float dk_scale, float dv_scale,
                        Element* d_key, Element* d_value) const {
    const int top = kFinishedRows * group;
    const bool row_valid = static_cast<unsigned>(y + top) < static_cast<unsigned>(g.height);
    if (static_cast<unsigned>(finished_column + left) >= columns || !row_valid || !has_head) return;
    const char* from = finished_pixels + left * kColumnBytes +
                       (first_slot + top + finished_slot) % kSlots * kSlotBytes;
    const uint32_t to = offset + left * column_stride + top * row_stride;
    const float4 a = *reinterpret_cast<const float4*>(from + ((2 * half) ^ chunk) * 16);
    const float4 b = *reinterpret_cast<const float4*>(from + ((2 * half + 1) ^ chunk) * 16);
    *reinterpret_cast<uint2*>(d_key + to) =
        make_uint2(PackX2<Element>(a.x * dk_scale, a.y * dk_scale),
                   PackX2<Element>(b.x * dk_scale, b.y * dk_scale));
    *reinterpret_cast<uint2*>(d_value + to) =
        make_uint2(PackX2<Element>(a.z * dv_scale, a.w * dv_scale),
                   PackX2<Element>(b.z * dv_scale, b.w * dv_scale));
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_KEY_GRADIENT_RING_CUH_
