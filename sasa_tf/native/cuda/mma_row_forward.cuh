// Forward pass for small images, see mma_row_tile.cuh for row tiles.
//
// A CTA loads query, key and value of whole images of one head into shared memory by TMA, and its
// warps compute the row tiles. For a row tile:
//   1. The queries to registers by ldmatrix, and the position bias.
//   2. For 16 keys at a time, one row of 16 columns or two of 8: S = bias + QK^T, P = exp2(S),
//      O += PV, and the row sums of P by a product with ones. Rows of keys outside of the image are
//      skipped.
//   3. Without masked borders, keys outside of the image take part in the softmax with zero keys and
//      values. Their logits are sums of a row and a column entry, so the sum of their exponentials
//      is computed from sums over rows and over columns.
//   4. Epilogue: O / row sum, and LSE = max + log(row sum).
//
// As in mma_forward.cuh, the row maximum is only subtracted if a sum is out of range without.
#ifndef SASA_TF_NATIVE_CUDA_MMA_ROW_FORWARD_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_ROW_FORWARD_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/mma_row_tile.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tma.cuh"

namespace sasa {
namespace {

enum class RowStore { kDirect, kTma, kPieces };

// How a kernel divides the work: `items` images of one head at a time, with `warps` for each, in
// `stages` of shared memory.
struct RowForwardConfig {
  int warps, items, stages, min_ctas_per_sm;
  RowStore store;
  bool tma_query;  // the queries come from shared memory
  bool branch;
};

struct RowForwardMaps {
  TensorMap query, key, value, output;
};

template <typename Traits, typename Config>
struct RowForwardLayout {
  static constexpr RowForwardConfig kConfig = Config::kConfig;
  static constexpr int kWarps = kConfig.warps * kConfig.items, kThreads = kWarps * kWarpSize;
  static constexpr bool kQueryInSmem = kConfig.tma_query || kConfig.store != RowStore::kDirect;
  static constexpr int kParts = kQueryInSmem ? 3 : 2;

  __host__ __device__ static int Images() { return kParts * kConfig.items * kConfig.stages; }
  static int Bytes(const RowTileGrid& g) {
    return Images() * g.row_tiles * Traits::kTileBytes + kWarps * RowTileBias<Traits>::kBytes +
           kConfig.stages * Mbarrier::kBytes;
  }
};

__device__ inline float QuadSumShuffle(float x) {
  x += __shfl_xor_sync(kFullMask, x, 1);
  return x + __shfl_xor_sync(kFullMask, x, 2);
}

// The keys outside of the image, of which a row tile's windows have some.
template <typename Traits>
struct OutsideKeys {
  using Bias = RowTileBias<Traits>;

  // Raises row_max to the maximum of their logits.
  __device__ static void UpdateMax(const RowTileGrid& g, const MmaLane& lane, const Bias& bias,
                                   int top, float scale_log2, float (&row_max)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float maxima[4];
      Maxima(g, lane, bias, top, scale_log2, half, maxima);
      row_max[half] = fmaxf(row_max[half], fmaxf(maxima[0] + maxima[1], maxima[2] + maxima[3]));
    }
  }

  // The lane's parts of the sums of their exponentials. Returns whether they are accurate.
  template <bool kSubtractMax>
  __device__ static bool Sum(const RowTileGrid& g, const MmaLane& lane, const Bias& bias, int top,
                             float scale_log2, const float (&row_max)[2], float (&parts)[2]) {
    bool in_range = true;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float maxima[4] = {};
      if (kSubtractMax) Maxima(g, lane, bias, top, scale_log2, half, maxima);
      // Of rows outside and all columns, and of rows inside and columns outside.
      float sums[4] = {};
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        const float row = bias.row_entries[i], column = bias.column_entries[i];
        const auto exp = [&](float x, int j) { return Exp2Approx(fmaf(x, scale_log2, -maxima[j])); };
        const bool is_entry = Bias::IsEntry(lane, i);
        const bool row_inside = Bias::RowInside(g, lane, i, top);
        const bool column_inside = Bias::ColumnInside(g, lane, i);
        if (is_entry && !row_inside) sums[0] += exp(row, 0);
        if (is_entry) sums[1] += exp(column, 1);
        if (row_inside) sums[2] += exp(row, 2);
        if (is_entry && !column_inside) sums[3] += exp(column, 3);
        if (!kSubtractMax) in_range &= fminf(row, column) * scale_log2 > -100.f;
      }
      parts[half] = sums[2] * QuadSumShuffle(sums[3]);
      if (kSubtractMax) parts[half] *= Exp2Approx(maxima[2] + maxima[3] - row_max[half]);
      if (top < Traits::kHalo || top + Traits::kTileRows - 1 + Traits::kHalo >= g.height) {
        float rows_part = sums[0] * QuadSumShuffle(sums[1]);
        if (kSubtractMax) rows_part *= Exp2Approx(maxima[0] + maxima[1] - row_max[half]);
        parts[half] += rows_part;
      }
    }
    return in_range;
  }

 private:
  // The maxima of rows outside, all columns, rows inside, and columns outside.
  __device__ static void Maxima(const RowTileGrid& g, const MmaLane& lane, const Bias& bias, int top,
                                float scale_log2, int half, float (&maxima)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) maxima[j] = kMaskedLogit;
#pragma unroll
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
      const float row = bias.row_entries[i] * scale_log2;
      const float column = bias.column_entries[i] * scale_log2;
      if (!Bias::IsEntry(lane, i)) continue;
      const int set = Bias::RowInside(g, lane, i, top) ? 2 : 0;
      maxima[set] = fmaxf(maxima[set], row);
      maxima[1] = fmaxf(maxima[1], column);
      if (!Bias::ColumnInside(g, lane, i)) maxima[3] = fmaxf(maxima[3], column);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) maxima[j] = QuadMax(maxima[j]);
  }
};

// The forward pass of a CTA.
template <typename Traits, typename Config, bool kPooled>
__device__ __forceinline__ void RowForwardCta(const RowTileGrid& g, const RowForwardMaps& maps,
                                              char* memory, const Bfloat16* __restrict__ query,
                                              int qkv_parts,
                                              const float* __restrict__ relative_rows,
                                              const float* __restrict__ relative_columns,
                                              Bfloat16* __restrict__ output,
                                              float* __restrict__ lse,
                                              Bfloat16* __restrict__ pooled_output) {
  using Layout = RowForwardLayout<Traits, Config>;
  constexpr RowForwardConfig kConfig = Config::kConfig;
  constexpr int kSteps = Traits::kSteps, kHeadChunks = Traits::kHeadChunks;
  constexpr int kRowSteps = Traits::kColumns == 16 ? Traits::kKeyRows : Traits::kKeyRows / 2;
  const MmaLane lane;
  const int warp = threadIdx.x / kWarpSize, image_bytes = g.row_tiles * Traits::kTileBytes;
  const int item_bytes = Layout::kParts * image_bytes;
  char* bias_memory = memory + Layout::Images() * image_bytes;
  const uint32_t smem = SmemAddress(memory);
  const uint32_t barriers = SmemAddress(bias_memory + Layout::kWarps * RowTileBias<Traits>::kBytes);
  const int groups = (g.items + kConfig.items - 1) / kConfig.items;
  const auto barrier = [&](int stage) { return Mbarrier(barriers + stage * Mbarrier::kBytes); };
  // Starts the loads of a group of items. Called by the first thread.
  const auto load = [&](int group, int stage) {
    const int first = group * kConfig.items;
    const int count = min(kConfig.items, g.items - first);
    barrier(stage).ArriveExpectTx(count * ((kConfig.tma_query ? 3 : 2) * image_bytes));
    for (int i = 0; i < count; ++i) {
      uint32_t image = first + i;
      const int channel = g.heads.DivmodInPlace(image) * Traits::kHeadDim;
      const uint32_t to = smem + (stage * kConfig.items + i) * item_bytes;
      if (kConfig.tma_query) {
        TmaLoad(maps.query, barrier(stage), to + 2 * image_bytes, channel, 0, 0, image);
      }
      TmaLoad(maps.key, barrier(stage), to, channel, 0, 0, image);
      TmaLoad(maps.value, barrier(stage), to + image_bytes, channel, 0, 0, image);
    }
  };
  if (threadIdx.x == 0) {
    maps.query.Prefetch();
    maps.key.Prefetch();
    maps.value.Prefetch();
    for (int i = 0; i < kConfig.stages; ++i) barrier(i).Init(1);
  }
  GridDependencyWait();  // the previous kernel may have written any of the arguments
  if (threadIdx.x == 0) {
    for (int i = 0; i < kConfig.stages; ++i) {
      const int group = blockIdx.x + i * gridDim.x;
      if (group < groups) load(group, i);
    }
  }
  RowTileBias<Traits> bias(g, lane, bias_memory + warp * RowTileBias<Traits>::kBytes, relative_rows,
                           relative_columns);
  __syncthreads();

  const float scale_log2 = g.scale * kLog2E;
  const uint32_t one = PackX2<Bfloat16>(1.f, 1.f);
  const uint32_t tile_offset = RowTileLdmatrixOffset<Traits, true>(lane);
  const uint32_t key_offset = RowTileLdmatrixOffset<Traits, false>(lane);

  int n = 0;
  for (int group = blockIdx.x; group < groups; group += gridDim.x, ++n) {
    const int stage = n % kConfig.stages;
    barrier(stage).Wait(n / kConfig.stages % 2);
    const int local = warp / kConfig.warps;
    uint32_t image = group * kConfig.items + local;
    const bool active = image < g.items;
    const int head = g.heads.DivmodInPlace(image);
    const uint32_t keys = smem + (stage * kConfig.items + local) * item_bytes;
    const uint32_t values = keys + image_bytes, queries = values + image_bytes;
    constexpr int kTileStep = kPooled && Traits::kTileRows == 1 ? 2 : 1;
    const int first_tile = warp % kConfig.warps * kTileStep;
#pragma unroll 1
    for (int first = first_tile; active && first < g.row_tiles; first += kConfig.warps * kTileStep) {
      float pooled[kHeadChunks][2];
#pragma unroll 1
      for (int tile = first; tile < first + kTileStep; ++tile) {
        const int top = tile * Traits::kTileRows;
        const uint32_t tile_smem = queries + tile * Traits::kTileBytes;
        // The lane's pixels.
        int x[2], y[2], pixel[2];
        bool valid[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          x[half] = lane.row + (Traits::kTileRows == 1 ? 8 * half : 0);
          y[half] = top + (Traits::kTileRows == 1 ? 0 : half);
          valid[half] = x[half] < g.width && y[half] < g.height;
          pixel[half] = (image * g.height + y[half]) * g.width + x[half];
        }
        RowTileFragment<Traits> q;
        if constexpr (kConfig.tma_query) {
          LoadRowTile<Traits>(tile_smem, tile_offset, q);
        } else {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int64_t offset =
                (static_cast<int64_t>(pixel[half]) * qkv_parts * g.heads.divisor + head) *
                    Traits::kHeadDim +
                2 * lane.pair;
#pragma unroll
            for (int c = 0; c < kHeadChunks; ++c) {
              uint32_t& to = q[c / 2][half + c % 2 * 2];
              to = 0;
              if (valid[half]) to = __ldg(reinterpret_cast<const uint32_t*>(query + offset + 8 * c));
            }
          }
        }
        float columns[Traits::kBlocks][4], rows[2][8];

        // S of a step's two blocks.
        const auto step_skipped = [&](int step) {
          const int row = top - Traits::kHalo + step * Traits::kTileRows;
          return row + Traits::kTileRows <= 0 || row >= g.height;
        };
        // Where the step's row of keys of a block lies; rows outside of the image have no weight.
        const auto row_offset = [&](int step, int block) -> int {
          const int row = top - Traits::kHalo + step * Traits::kTileRows;
          if (Traits::kTileRows == 1) {
            if (kConfig.branch) return row * (Traits::kColumns * Traits::kPixelBytes);
            return min(max(row, 0), g.height - 1) * (Traits::kColumns * Traits::kPixelBytes);
          }
          return (min(max(row + block, 0), g.height - 1) - block) *
                 (Traits::kColumns * Traits::kPixelBytes);
        };
        const auto logits = [&](int step, float(&s)[2][4]) {
          const uint32_t from = keys + row_offset(step, lane.matrix_hi);
#pragma unroll
          for (int i = 0; i < kSteps; ++i) {
            uint32_t k[4];
            LdmatrixX4(from + (key_offset ^ 32 * i), k);
#pragma unroll
            for (int block = 0; block < 2; ++block) {
              const float(&c)[4] = i == 0 ? columns[block % Traits::kBlocks] : s[block];
              MmaM16N8K16<Bfloat16>(s[block], c, q[i][0], q[i][1], q[i][2], q[i][3], k[2 * block],
                                    k[2 * block + 1]);
            }
          }
        };
        const auto slot = [](int step, int block) {
          return Traits::kTileRows == 1 ? step : 2 * step + block;
        };
        const bool outside = !g.mask_border;
        float row_max[2] = {0.f, 0.f}, row_sum[4], acc[kHeadChunks][4];
        for (bool subtract_max = false;; subtract_max = true) {
          bias.Compute(g, lane, q, top, scale_log2, columns, rows);
          if (subtract_max) {
            row_max[0] = row_max[1] = kMaskedLogit;
#pragma unroll 
            for (int step = 0; step < kRowSteps; ++step) {
              if (step_skipped(step)) continue;
              float s[2][4];
              logits(step, s);
#pragma unroll
              for (int i = 0; i < 8; ++i) {
                const int half = i % 4 / 2;
                row_max[half] = fmaxf(row_max[half],
                                      fmaf(s[i / 4][i % 4], scale_log2, rows[half][slot(step, i / 4)]));
              }
            }
            row_max[0] = QuadMax(row_max[0]);
            row_max[1] = QuadMax(row_max[1]);
            if (outside) {
              OutsideKeys<Traits>::UpdateMax(g, lane, bias, top, scale_log2, row_max);
            }
#pragma unroll
            for (int i = 0; i < 2 * Traits::kKeyRows; ++i) rows[i % 2][i / 2] -= row_max[i % 2];
          }
          bool in_range = true;
          float parts[2] = {0.f, 0.f};
          if (outside) {
            in_range = subtract_max ? OutsideKeys<Traits>::template Sum<true>(
                                          g, lane, bias, top, scale_log2, row_max, parts)
                                    : OutsideKeys<Traits>::template Sum<false>(
                                          g, lane, bias, top, scale_log2, row_max, parts);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            row_sum[i] = 0.f;
#pragma unroll
            for (int c = 0; c < kHeadChunks; ++c) acc[c][i] = 0.f;
          }
#pragma unroll
          for (int step = 0; step < kRowSteps; ++step) {
            if (kConfig.branch && step_skipped(step)) continue;
            float s[2][4];
            logits(step, s);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
              s[i / 4][i % 4] = Exp2Approx(
                  fmaf(s[i / 4][i % 4], scale_log2, rows[i % 4 / 2][slot(step, i / 4)]));
            }
            uint32_t p[4];
            PackAFragment<Bfloat16>(s[0], s[1], p);
            const uint32_t from = values + row_offset(step, lane.matrix_lo);
#pragma unroll
            for (int i = 0; i < kSteps; ++i) {
              uint32_t v[4];
              LdmatrixX4Trans(from + (tile_offset ^ 32 * i), v);
              MmaM16N8K16<Bfloat16>(acc[2 * i], p[0], p[1], p[2], p[3], v[0], v[1]);
              MmaM16N8K16<Bfloat16>(acc[2 * i + 1], p[0], p[1], p[2], p[3], v[2], v[3]);
            }
            MmaM16N8K16<Bfloat16>(row_sum, p[0], p[1], p[2], p[3], one, one);
          }
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            if (outside) row_sum[2 * half] += QuadSumShuffle(parts[half]);
            const float sum = row_sum[2 * half];
            in_range &= (sum > 0x1p-100f && sum < 0x1p100f) || !valid[half];
          }
          if (subtract_max || __all_sync(kFullMask, in_range)) break;
        }
        const float weight[2] = {RcpApprox(row_sum[0]), RcpApprox(row_sum[2])};
#pragma unroll
        for (int c = 0; c < kHeadChunks; ++c) {
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[c][i] *= weight[i / 2];
        }
        if (!kPooled || output != nullptr) {
          if constexpr (kConfig.store == RowStore::kDirect) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              if (!valid[half]) continue;
              Bfloat16* to =
                  output +
                  (static_cast<int64_t>(pixel[half]) * g.heads.divisor + head) * Traits::kHeadDim +
                  2 * lane.pair;
#pragma unroll
              for (int c = 0; c < kHeadChunks; ++c) {
                *reinterpret_cast<uint32_t*>(to + 8 * c) =
                    PackX2<Bfloat16>(acc[c][2 * half], acc[c][2 * half + 1]);
              }
            }
          } else {
#pragma unroll
            for (int i = 0; i < kSteps; ++i) {
              uint32_t o[4];
              PackAFragment<Bfloat16>(acc[2 * i], acc[2 * i + 1], o);
              StmatrixX4(tile_smem + (tile_offset ^ 32 * i), o[0], o[1], o[2], o[3]);
            }
            if constexpr (kConfig.store == RowStore::kTma) {
              TmaStoreFence();
              __syncwarp();
              if (lane.id == 0) {
                TmaStore(maps.output, tile_smem, head * Traits::kHeadDim, 0, top, image);
              }
            } else {
              __syncwarp();
              char* from = memory + (tile_smem - smem);
#pragma unroll
              for (int i = 0; i < kHeadChunks / 2; ++i) {
                const int piece = i * kWarpSize + lane.id, p = piece / kHeadChunks;
                const int px = p % Traits::kColumns, py = top + p / Traits::kColumns;
                if (px < g.width && py < g.height) {
                  const int64_t to =
                      (static_cast<int64_t>((image * g.height + py) * g.width + px) *
                           g.heads.divisor +
                       head) *
                          Traits::kHeadDim +
                      piece % kHeadChunks * 8;
                  *reinterpret_cast<uint4*>(output + to) = *reinterpret_cast<const uint4*>(
                      from + Traits::SwizzledOffset(p, piece % kHeadChunks));
                }
              }
            }
          }
        }
        if (lse != nullptr && lane.pair < 2 && valid[lane.pair]) {
          const float sum = lane.pair ? row_sum[2] : row_sum[0];
          const float max = lane.pair ? row_max[1] : row_max[0];
          const int to = lane.pair ? pixel[1] : pixel[0];
          lse[static_cast<int64_t>(to) * g.heads.divisor + head] = kLn2 * (max + Log2Approx(sum));
        }
        if constexpr (kPooled) {
          // A lane adds the columns of a pair: lanes of even columns those of the first half.
          const bool odd = lane.row % 2 != 0;
#pragma unroll
          for (int c = 0; c < kHeadChunks; ++c) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              if constexpr (Traits::kTileRows == 1) {
                const float own = odd ? acc[c][2 + i] : acc[c][i];
                const float other = odd ? acc[c][i] : acc[c][2 + i];
                const float sum = own + __shfl_xor_sync(kFullMask, other, 4);
                pooled[c][i] = tile == first ? sum : pooled[c][i] + sum;
              } else {
                const float sum = acc[c][i] + acc[c][2 + i];
                pooled[c][i] = sum + __shfl_xor_sync(kFullMask, sum, 4);
              }
            }
          }
        }
      }
      if constexpr (kPooled) {
        const bool odd = lane.row % 2 != 0;
        const int px = lane.row / 2 + (Traits::kTileRows == 1 && odd ? 4 : 0);
        const int py = first * Traits::kTileRows / 2;
        if ((Traits::kTileRows == 1 || !odd) && 2 * px < g.width) {
          const int64_t to = (static_cast<int64_t>((image * (g.height / 2) + py) * (g.width / 2) + px) *
                                  g.heads.divisor +
                              head) *
                                 Traits::kHeadDim +
                             2 * lane.pair;
#pragma unroll
          for (int c = 0; c < kHeadChunks; ++c) {
            *reinterpret_cast<uint32_t*>(pooled_output + to + 8 * c) =
                PackX2<Bfloat16>(pooled[c][0] * kPoolWeight, pooled[c][1] * kPoolWeight);
          }
        }
      }
    }
    if (kConfig.store == RowStore::kTma && lane.id == 0) TmaStoreWaitRead();
    const int next = group + kConfig.stages * gridDim.x;
    if (next < groups) {
      __syncthreads();
      if (threadIdx.x == 0) load(next, stage);
    }
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_FORWARD_CUH_
