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
// that is computed there. The next row of MMA tiles, two rows of pixels further down, adds to all
// but the first two rows of keys, and takes their place with its last two. So a ring of 8 rows is
// enough, if the rows of MMA tiles follow one another in each column.
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
  static_assert(kSlots == 8 && Traits::kRowBlocks == 1 && Traits::kBlockColumns == 1 &&
                kFinishedRows == 2 && Traits::kChunks == 2);

  unsigned columns;  // of the image
  bool is_new;       // whether the lane's row has no sums yet
  char* own_row;     // the lane's row in the first halo column of the row's first MMA tile
  // Two finished rows: of four columns, the lane stores half a chunk of one pixel.
  int finished_column;            // the lane's, in the image
  int finished_slot, first_slot;  // of the lane's row, and of the halo tile's first
  const char* finished_pixels;    // of the lane's column and chunk
  int half, chunk, y;             // of the chunk; y: the row in the image
  bool has_head;
  uint32_t offset, column_stride, row_stride;  // in dK and dV, of the lane's first pixel

  // For a row of MMA tiles; `row` counts them from the top of the image.
  __device__ KeyGradientRing(char* smem, const TileGrid& g, const KeyRegion& region, int row,
                             const MmaLane& lane)
      : columns(g.width), is_new(row == 0 || lane.row >= kSlots - kFinishedRows) {
    first_slot = row * kFinishedRows % kSlots;
    own_row = smem - Traits::kHalo * kColumnBytes + (first_slot + lane.row) % kSlots * kSlotBytes;
    half = lane.id % 2;
    chunk = lane.id / 4 % 2;
    finished_column = lane.id / 8 - Traits::kHalo;
    finished_slot = lane.id / 2 % 2;
    finished_pixels = smem + finished_column * kColumnBytes + chunk * kChunkBytes;
    y = row * kFinishedRows - Traits::kHalo + lane.id / 2 % 2;
    const int head = region.head + chunk / Traits::kHeadChunks;
    has_head = head < g.heads;
    column_stride = g.qkv_parts * g.heads * Traits::kHeadDim;
    row_stride = g.width * column_stride;
    offset = (region.image * g.height + y) * row_stride +
             finished_column * column_stride + head * Traits::kHeadDim +
             chunk % Traits::kHeadChunks * 8 + half * 4;
  }
  // Adds the gradients of steps, the first of which begins at column `left` of the row's halo. The
  // sums are read first, as the compiler does not know that they are different ones.
  template <int kSteps>
  __device__ void Add(int left, const MmaLane& lane,
                      const KeyGradients<Traits> (&gradients)[kSteps]) const {
    constexpr int kChunks = Traits::kChunks;
    char* column = own_row + left * kColumnBytes;
    float4 sums[2 * kSteps][kChunks];
    bool valid[2 * kSteps];
#pragma unroll
    for (int i = 0; i < 2 * kSteps; ++i) {
      valid[i] = static_cast<unsigned>(left + i - Traits::kHalo) < columns;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        sums[i][c] = make_float4(0.f, 0.f, 0.f, 0.f);
        if (valid[i] && !is_new) {
          sums[i][c] = *reinterpret_cast<const float4*>(
              column + i * kColumnBytes + c * kChunkBytes + (lane.pair ^ c) * 16);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * kSteps; ++i) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const KeyGradients<Traits>& step = gradients[i / 2];
        float4& sum = sums[i][c];
        sum.x += step.dk[c][i % 2 * 2];
        sum.y += step.dk[c][i % 2 * 2 + 1];
        sum.z += step.dv[c][i % 2 * 2];
        sum.w += step.dv[c][i % 2 * 2 + 1];
        if (valid[i]) {
          *reinterpret_cast<float4*>(column + i * kColumnBytes + c * kChunkBytes +
                                     (lane.pair ^ c) * 16) = sum;
        }
      }
    }
  }
  // Stores rows 2 `pair` and 2 `pair` + 1 of the halo tile, as far as they lie in the image, of the
  // four columns from column `left` of the row's halo on.
  __device__ void Store(const TileGrid& g, int left, int pair, float dk_scale, float dv_scale,
                        Element* d_key, Element* d_value) const {
    const bool row_valid = static_cast<unsigned>(y + 2 * pair) < static_cast<unsigned>(g.height);
    if (static_cast<unsigned>(finished_column + left) >= columns || !row_valid || !has_head) return;
    const char* from = finished_pixels + left * kColumnBytes +
                       (first_slot + 2 * pair + finished_slot) % kSlots * kSlotBytes;
    const uint32_t to = offset + left * column_stride + 2 * pair * row_stride;
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
