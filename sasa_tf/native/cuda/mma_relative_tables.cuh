// The relative tables of the tensor core kernels, converted to half precision in shared memory.
#ifndef SASA_TF_NATIVE_CUDA_MMA_RELATIVE_TABLES_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_RELATIVE_TABLES_CUH_

#include "cuda/mma_traits.cuh"
#include "cuda/tile_scheduler.cuh"

namespace sasa {
namespace {

// [chunk][entry][8 channels], the row table before the column table. An entry of 16 bytes is a row
// of an 8x8 matrix of ldmatrix.
template <typename Traits>
struct RelativeTables {
  using Element = typename Traits::Element;
  static constexpr int kRowEntries = Traits::kRowEntries;
  static constexpr int kColumnEntries = Traits::kColumnEntries;
  static constexpr int kBytes = (kRowEntries + kColumnEntries) * Traits::kTableChunks * 16;
  Element* rows;
  Element* columns;

  __device__ explicit RelativeTables(void* smem)
      : rows(static_cast<Element*>(smem)), columns(rows + kRowEntries * Traits::kTableChunks * 8) {}
  // Entry `index` of a table; the padding has indices outside [0, K).
  __device__ const Element* Row(int index, int chunk = 0) const {
    return rows + (chunk * kRowEntries + index + Traits::kRowPadding) * 8;
  }
  __device__ const Element* Column(int index, int chunk = 0) const {
    return columns + (chunk * kColumnEntries + index + Traits::kColumnPadding) * 8;
  }

  // Converts the tables [K, D/2]; zeros without relative positions. A __syncthreads must follow.
  __device__ void Fill(const TileGrid& g, const float* row_table, const float* column_table) const {
    constexpr int kHalf = Traits::kHeadDim / 2;
    constexpr int kRowElements = kRowEntries * Traits::kTableChunks * 8;
    for (int i = threadIdx.x; i < kBytes / 2; i += Traits::kThreads) {
      const bool is_row = i < kRowElements;
      const int entry = is_row ? i / 8 : (i - kRowElements) / 8;
      const int entries = is_row ? kRowEntries : kColumnEntries;
      const int index = entry % entries - (is_row ? Traits::kRowPadding : Traits::kColumnPadding);
      // In a head of one chunk the second half of the channels is the column table's.
      const int channel =
          entry / entries * 8 + i % 8 - (is_row || Traits::kHeadChunks > 1 ? 0 : kHalf);
      float x = 0.f;
      if (g.has_relative && index >= 0 && index < Traits::kKernel && channel >= 0 &&
          channel < kHalf) {
        x = (is_row ? row_table : column_table)[index * kHalf + channel];
      }
      rows[i] = ConvertTo<Element>(x);
    }
  }
};

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_RELATIVE_TABLES_CUH_
