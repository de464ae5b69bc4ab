// Sums of dS of a row tile by table entry, over the neighbors outside of the image.
#ifndef SASA_TF_NATIVE_CUDA_MMA_ROW_TABLE_SUMS_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_ROW_TABLE_SUMS_CUH_

#include <cuda_runtime.h>

#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/mma_row_bias.cuh"
#include "cuda/mma_row_tile.cuh"
#include "cuda/ptx.cuh"

namespace sasa {
namespace {

// Sums the values of a quad's lanes, two of each half of the rows, in TF32. The sums are an
// accumulator [16, 8] with equal columns.
__device__ inline void QuadSumTf32(const float (&values)[4], float (&sums)[4]) {
  MmaM16N8K8Tf32(sums, kZeros, values[0], values[2], values[1], values[3], 1.f, 1.f);
}

// Adds the sums of dS = -delta exp2(first[i] + second[j]) over j to first_sums[i], and over i to
// second_sums[j], for all entries i and j of a query. The sums are products of sums. The maximum of
// `first` is moved to `second`, so that neither factor overflows.
__device__ inline void AddProducts(float (&first)[4], float (&second)[4],
                                   const float (&minus_delta)[4], float (&first_sums)[4],
                                   float (&second_sums)[4]) {
  const float max[2] = {QuadMax(fmaxf(first[0], first[1])), QuadMax(fmaxf(first[2], first[3]))};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    first[i] = Exp2Approx(first[i] - max[i / 2]);
    second[i] = Exp2Approx(second[i] + max[i / 2]);
  }
  float first_sum[4], second_sum[4];
  QuadSumTf32(first, first_sum);
  QuadSumTf32(second, second_sum);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    first_sums[i] = fmaf(first[i], second_sum[i] * minus_delta[i], first_sums[i]);
    second_sums[i] = fmaf(second[i], first_sum[i] * minus_delta[i], second_sums[i]);
  }
}

// Adds those of the neighbors outside of the image, which have zero keys and values, so that their
// weights are exp2(rows[a] + columns[b]).
template <typename Traits>
__device__ inline void AddOutsideSums(const RowTileGrid& g, const MmaLane& lane, int top,
                                      const float (&row_logits)[4],
                                      const float (&column_logits)[4],
                                      const float (&minus_delta)[4], float (&row_sums)[4],
                                      float (&column_sums)[4]) {
  using Bias = RowTileBias<Traits>;
  float rows[4], columns[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool is_entry = Bias::IsEntry(lane, i);
    rows[i] = is_entry ? row_logits[i] : kMaskedLogit;
    columns[i] = is_entry && !Bias::ColumnInside(g, lane, i) ? column_logits[i] : kMaskedLogit;
  }
  AddProducts(columns, rows, minus_delta, column_sums, row_sums);
  if (top >= Traits::kHalo && top + Traits::kTileRows + Traits::kHalo <= g.height) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool is_entry = Bias::IsEntry(lane, i);
    rows[i] = is_entry && !Bias::RowInside(g, lane, i, top) ? row_logits[i] : kMaskedLogit;
    columns[i] = Bias::ColumnInside(g, lane, i) ? column_logits[i] : kMaskedLogit;
  }
  AddProducts(rows, columns, minus_delta, row_sums, column_sums);
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_TABLE_SUMS_CUH_
