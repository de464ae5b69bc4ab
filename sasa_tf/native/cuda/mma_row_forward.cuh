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
#include "cuda/opaque_register.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tma.cuh"

namespace sasa {
namespace {

// How a kernel divides the work: a CTA computes an item at a time, with `stages` buffers.
struct RowForwardConfig {
  int warps, stages, min_ctas_per_sm;
  bool persistent;
  int pipeline;
};

struct RowForwardMaps {
  TensorMap query, key, value, output;
};

// Shared memory: the keys, values and queries of `stages` items, the position bias of each warp, and
// an mbarrier for each stage. The outputs of a row tile replace its queries.
template <typename Traits, typename Config>
struct RowForwardLayout {
  static constexpr RowForwardConfig kConfig = Config::kConfig;
  static constexpr int kWarps = kConfig.warps, kThreads = kWarps * kWarpSize;
  // With two rows of keys at a time, one may be the row before or after the image. There are zeros.
  static constexpr int kPaddingBytes = Traits::kTileRows == 2 ? 1024 : 0;

  __host__ __device__ static int ImageBytes(const RowTileGrid& g) {
    return g.row_tiles * Traits::kTileBytes + kPaddingBytes;
  }
  __host__ __device__ static int StageBytes(const RowTileGrid& g) { return 3 * ImageBytes(g); }
  static int Bytes(const RowTileGrid& g) {
    return kConfig.stages * (StageBytes(g) + Mbarrier::kBytes) + kWarps * RowTileBias<Traits>::kBytes;
  }
};

__device__ inline float QuadSumShuffle(float x) {
  x += __shfl_xor_sync(kFullMask, x, 1);
  return x + __shfl_xor_sync(kFullMask, x, 2);
}

// The keys outside of the image that the windows of row tiles reach.
template <typename Traits>
struct OutsideKeys {
  using Bias = RowTileBias<Traits>;
  float column_outside[4];  // 1 for the lane's entries that are for columns outside, else 0
  float has_entry[2];       // 1 if the lane's even or odd entries are in the tables, else 0

  __device__ OutsideKeys(const RowTileGrid& g, const MmaLane& lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool outside = Bias::IsEntry(lane, i) && !Bias::ColumnInside(g, lane, i);
      column_outside[i] = OpaqueRegister(outside ? 1.f : 0.f, lane, 4 + i);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      has_entry[i] = i == 0 && Traits::kKernel == 7
                         ? 1.f
                         : OpaqueRegister(Bias::IsEntry(lane, i) ? 1.f : 0.f, lane, 8 + i);
    }
  }

  // The lane's parts of the sums of the exponentials. Returns whether they are accurate.
  __device__ bool Sum(const RowTileGrid& g, const MmaLane& lane, const Bias& bias, int top,
                      float scale_log2, float (&parts)[2]) const {
    const bool all_inside =
        top >= Traits::kHalo && top + Traits::kTileRows - 1 + Traits::kHalo < g.height;
    float min = bias.row_entries[0];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float rows[2], columns[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float row = bias.row_entries[2 * half + i], column = bias.column_entries[2 * half + i];
        min = fminf(min, fminf(row, column));
        rows[i] = Exp2Approx(row * scale_log2) * has_entry[i];
        columns[i] = Exp2Approx(column * scale_log2);
      }
      const float of_columns_outside = QuadSumShuffle(columns[0] * column_outside[2 * half] +
                                                      columns[1] * column_outside[2 * half + 1]);
      parts[half] = (rows[0] + rows[1]) * of_columns_outside;
      if (!all_inside) {
        const float of_all_columns = QuadSumShuffle(columns[0] * has_entry[0] + columns[1] * has_entry[1]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // An entry that the table does not have is zero.
          const bool inside = Bias::RowInside(g, lane, 2 * half + i, top);
          parts[half] += inside ? 0.f : rows[i] * (of_all_columns - of_columns_outside);
        }
      }
    }
    return min * scale_log2 > -100.f;
  }

  // Raises the maximum of each half's logits by theirs, and computes the same as Sum, with the
  // maximum subtracted.
  __device__ static void SumWithMax(const RowTileGrid& g, const MmaLane& lane, const Bias& bias,
                                    int top, float scale_log2, float (&row_max)[2],
                                    float (&parts)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Rows inside and columns outside, then rows outside and all columns.
      float row_values[2][2], column_values[2][2], maxima[2];
#pragma unroll
      for (int set = 0; set < 2; ++set) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int entry = 2 * half + i;
          const bool is_entry = Bias::IsEntry(lane, entry);
          const bool has_row = is_entry && Bias::RowInside(g, lane, entry, top) == (set == 0);
          const bool has_column = is_entry && (set == 1 || !Bias::ColumnInside(g, lane, entry));
          row_values[set][i] = has_row ? bias.row_entries[entry] * scale_log2 : kMaskedLogit;
          column_values[set][i] = has_column ? bias.column_entries[entry] * scale_log2 : kMaskedLogit;
        }
        maxima[set] = QuadMax(fmaxf(column_values[set][0], column_values[set][1]));
        row_max[half] =
            fmaxf(row_max[half],
                  QuadMax(fmaxf(row_values[set][0], row_values[set][1])) + maxima[set]);
      }
      parts[half] = 0.f;
#pragma unroll
      for (int set = 0; set < 2; ++set) {
        const float columns = QuadSumShuffle(Exp2Approx(column_values[set][0] - maxima[set]) +
                                             Exp2Approx(column_values[set][1] - maxima[set]));
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          parts[half] += columns * Exp2Approx(row_values[set][i] + maxima[set] - row_max[half]);
        }
      }
    }
  }
};

// The forward pass of a CTA.
template <typename Traits, typename Config, bool kPooled>
__device__ __forceinline__ void RowForwardCta(const RowTileGrid& g, const RowForwardMaps& maps,
                                              char* memory,
                                              const float* __restrict__ relative_rows,
                                              const float* __restrict__ relative_columns,
                                              bool store_output, float* __restrict__ lse,
                                              Bfloat16* __restrict__ pooled_output) {
  using Layout = RowForwardLayout<Traits, Config>;
  constexpr RowForwardConfig kConfig = Config::kConfig;
  constexpr int kStages = kConfig.stages;
  constexpr int kSteps = Traits::kSteps, kHeadChunks = Traits::kHeadChunks;
  constexpr int kRowBytes = Traits::kColumns * Traits::kPixelBytes;  // of an image in shared memory
  const MmaLane lane;
  const int warp = __shfl_sync(kFullMask, threadIdx.x / kWarpSize, 0);
  const int image_bytes = Layout::ImageBytes(g), stage_bytes = Layout::StageBytes(g);
  char* bias_memory = memory + kStages * stage_bytes;
  const uint32_t smem = SmemAddress(memory);
  const uint32_t barriers = SmemAddress(bias_memory + Layout::kWarps * RowTileBias<Traits>::kBytes);
  const auto barrier = [&](int stage) { return Mbarrier(barriers + stage * Mbarrier::kBytes); };
  // Starts the loads of an item. Called by the first thread.
  const auto load = [&](uint32_t item, int stage) {
    const int channel = g.heads.DivmodInPlace(item) * Traits::kHeadDim;
    const uint32_t to = smem + stage * stage_bytes + Layout::kPaddingBytes;
    barrier(stage).ArriveExpectTx(3 * (image_bytes - Layout::kPaddingBytes));
    TmaLoad(maps.query, barrier(stage), to + 2 * image_bytes, channel, 0, 0, item);
    TmaLoad(maps.key, barrier(stage), to, channel, 0, 0, item);
    TmaLoad(maps.value, barrier(stage), to + image_bytes, channel, 0, 0, item);
  };
  if (threadIdx.x == 0) {
    maps.query.Prefetch();
    maps.key.Prefetch();
    maps.value.Prefetch();
    for (int i = 0; i < kStages; ++i) barrier(i).Init(1);
  }
  GridDependencyWait();  // the previous kernel may have written any of the arguments
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      const int item = blockIdx.x + i * gridDim.x;
      if (item < g.items) load(item, i);
    }
  }
  if constexpr (Layout::kPaddingBytes > 0) {
    for (int image = 0; image < 3 * kStages; ++image) {
      for (int i = threadIdx.x; i < Layout::kPaddingBytes / 16; i += Layout::kThreads) {
        reinterpret_cast<uint4*>(memory + image * image_bytes)[i] = make_uint4(0, 0, 0, 0);
      }
    }
  }
  RowTileBias<Traits> bias(g, lane, bias_memory + warp * RowTileBias<Traits>::kBytes, relative_rows,
                           relative_columns);
  const OutsideKeys<Traits> outside_keys(g, lane);
  __syncthreads();

  const float scale_log2 = g.scale * kLog2E;
  const uint32_t one = PackX2<Bfloat16>(1.f, 1.f);
  const uint32_t tile_offset = RowTileLdmatrixOffset<Traits, true>(lane);
  const uint32_t key_offset = RowTileLdmatrixOffset<Traits, false>(lane);

  int n = 0;
#pragma unroll 1
  for (int item = blockIdx.x; item < g.items; item += gridDim.x, ++n) {
    const int stage = n % kStages;
    barrier(stage).Wait(n / kStages % 2);
    uint32_t image = item;
    const int head = g.heads.DivmodInPlace(image);
    const uint32_t keys = smem + stage * stage_bytes + Layout::kPaddingBytes;
    const uint32_t values = keys + image_bytes, queries = values + image_bytes;
    constexpr int kPoolTiles = kPooled ? 2 / Traits::kTileRows : 1;
#pragma unroll 1
    for (int first = warp * kPoolTiles; first < g.row_tiles; first += Layout::kWarps * kPoolTiles) {
#pragma unroll 1
      for (int tile = first; tile < first + kPoolTiles; ++tile) {
        const int top = tile * Traits::kTileRows;
        const uint32_t tile_smem = queries + tile * Traits::kTileBytes;
        // The lane's pixels.
        const auto column_of = [&](int half) {
          return lane.row + (Traits::kTileRows == 1 ? 8 * half : 0);
        };
        const auto row_of = [&](int half) { return top + (Traits::kTileRows == 1 ? 0 : half); };
        const auto valid = [&](int half) {
          return column_of(half) < g.width && row_of(half) < g.height;
        };
        RowTileFragment<Traits> q;
        LoadRowTile<Traits>(tile_smem, tile_offset, q);
        float columns[Traits::kBlocks][4];

        // A step is 16 keys: one or two rows, from the first in the windows on.
        constexpr int kRowSteps = Traits::kKeyRows / Traits::kTileRows;
        const int first_row = top - Traits::kHalo;
        const int begin_step = max(0, -first_row / Traits::kTileRows);
        const int end_step =
            min(kRowSteps, (g.height - first_row + Traits::kTileRows - 1) / Traits::kTileRows);
        const auto step_offset = [&](int step) {
          return (first_row + step * Traits::kTileRows) * kRowBytes;
        };
        const auto slot = [](int step, int block) {
          return Traits::kTileRows == 1 ? step : 2 * step + block;
        };
        const auto logits = [&](int step, float(&s)[2][4]) {
          const uint32_t from = keys + step_offset(step);
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
        float row_max[2] = {0.f, 0.f}, row_sum[4], acc[kHeadChunks][4];
        const auto attend = [&](int step, float(&s)[2][4]) {
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            const float row = bias.RowPart(lane, i % 4 / 2, slot(step, i / 4));
            s[i / 4][i % 4] = Exp2Approx(fmaf(s[i / 4][i % 4], scale_log2, row));
          }
          uint32_t p[4];
          PackAFragment<Bfloat16>(s[0], s[1], p);
          const uint32_t from = values + step_offset(step);
#pragma unroll
          for (int i = 0; i < kSteps; ++i) {
            uint32_t v[4];
            LdmatrixX4Trans(from + (tile_offset ^ 32 * i), v);
            MmaM16N8K16<Bfloat16>(acc[2 * i], p[0], p[1], p[2], p[3], v[0], v[1]);
            MmaM16N8K16<Bfloat16>(acc[2 * i + 1], p[0], p[1], p[2], p[3], v[2], v[3]);
          }
          MmaM16N8K16<Bfloat16>(row_sum, p[0], p[1], p[2], p[3], one, one);
        };
        const bool outside = !g.mask_border;
        for (bool subtract_max = false;; subtract_max = true) {
          bias.Compute(g, lane, q, top, scale_log2, columns);
          bool in_range = true;
          float parts[2] = {0.f, 0.f};
          if (!subtract_max) {
            if (outside) in_range = outside_keys.Sum(g, lane, bias, top, scale_log2, parts);
          } else {
            row_max[0] = row_max[1] = kMaskedLogit;
#pragma unroll 1
            for (int step = begin_step; step < end_step; ++step) {
              float s[2][4];
              logits(step, s);
#pragma unroll
              for (int i = 0; i < 8; ++i) {
                const int half = i % 4 / 2;
                const float row = bias.RowPart(lane, half, slot(step, i / 4));
                row_max[half] = fmaxf(row_max[half], fmaf(s[i / 4][i % 4], scale_log2, row));
              }
            }
            row_max[0] = QuadMax(row_max[0]);
            row_max[1] = QuadMax(row_max[1]);
            if (outside) {
              OutsideKeys<Traits>::SumWithMax(g, lane, bias, top, scale_log2, row_max, parts);
            }
            bias.SubtractMax(lane, row_max);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            row_sum[i] = 0.f;
#pragma unroll
            for (int c = 0; c < kHeadChunks; ++c) acc[c][i] = 0.f;
          }
          if constexpr (kConfig.pipeline == 0) {
#pragma unroll
            for (int step = 0; step < kRowSteps; ++step) {
              if (step < begin_step || step >= end_step) continue;
              float s[2][4];
              logits(step, s);
              attend(step, s);
            }
          } else if constexpr (kConfig.pipeline == 1) {
            float s[2][2][4];
            logits(begin_step, s[0]);
#pragma unroll 1
            for (int step = begin_step;;) {
              logits(min(step + 1, end_step - 1), s[1]);
              attend(step, s[0]);
              if (++step == end_step) break;
              logits(min(step + 1, end_step - 1), s[0]);
              attend(step, s[1]);
              if (++step == end_step) break;
            }
          } else {
            int step = begin_step;
#pragma unroll 1
            for (; step + 1 < end_step; step += 2) {
              float s[2][2][4];
              logits(step, s[0]);
              logits(step + 1, s[1]);
              attend(step, s[0]);
              attend(step + 1, s[1]);
            }
            if (step < end_step) {
              float s[2][4];
              logits(step, s);
              attend(step, s);
            }
          }
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            if (outside) row_sum[2 * half] += QuadSumShuffle(parts[half]);
            const float sum = row_sum[2 * half];
            in_range &= (sum > 0x1p-100f && sum < 0x1p100f) || !valid(half);
          }
          if (subtract_max || __all_sync(kFullMask, in_range)) break;
        }
        const float weight[2] = {RcpApprox(row_sum[0]), RcpApprox(row_sum[2])};
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          uint32_t o[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const float(&of_chunk)[4] = acc[2 * i + j / 2];
            const int half = j % 2;
            o[j] = PackX2<Bfloat16>(of_chunk[2 * half] * weight[half],
                                    of_chunk[2 * half + 1] * weight[half]);
          }
          StmatrixX4(tile_smem + (tile_offset ^ 32 * i), o[0], o[1], o[2], o[3]);
        }
        TmaStoreFence();
        __syncwarp();
        if (store_output && lane.id == 0) {
          TmaStore(maps.output, tile_smem, head * Traits::kHeadDim, 0, top, image);
        }
        if (lse != nullptr && lane.pair < 2 && valid(lane.pair)) {
          const float sum = lane.pair ? row_sum[2] : row_sum[0];
          const float max = lane.pair ? row_max[1] : row_max[0];
          const int pixel = (image * g.height + row_of(lane.pair)) * g.width + column_of(lane.pair);
          lse[pixel * g.heads.divisor + head] = kLn2 * (max + Log2Approx(sum));
        }
      }
      if constexpr (kPooled) {
        constexpr int kPieces = Traits::kColumns / 2 * kHeadChunks;
#pragma unroll
        for (int i = 0; i < CeilDiv(kPieces, kWarpSize); ++i) {
          const int piece = i * kWarpSize + lane.id, chunk = piece % kHeadChunks;
          const int x = piece / kHeadChunks;
          if (2 * x >= g.width) continue;
          const char* from = memory + (queries - smem) + first * Traits::kTileBytes;
          float sums[8];
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const int pixel = j / 2 * Traits::kColumns + 2 * x + j % 2;
            const uint4 four =
                *reinterpret_cast<const uint4*>(from + Traits::SwizzledOffset(pixel, chunk));
            const uint32_t packed[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              const float2 two = UnpackX2(packed[c], Bfloat16());
              sums[2 * c] = j == 0 ? two.x : sums[2 * c] + two.x;
              sums[2 * c + 1] = j == 0 ? two.y : sums[2 * c + 1] + two.y;
            }
          }
          const uint32_t pixel =
              (image * (g.height / 2) + first * Traits::kTileRows / 2) * (g.width / 2) + x;
          uint32_t means[4];
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            means[c] = PackX2<Bfloat16>(sums[2 * c] * kPoolWeight, sums[2 * c + 1] * kPoolWeight);
          }
          *reinterpret_cast<uint4*>(pooled_output +
                                    (pixel * g.heads.divisor + head) * Traits::kHeadDim +
                                    8 * chunk) = make_uint4(means[0], means[1], means[2], means[3]);
        }
      }
    }
    if (lane.id == 0) TmaStoreWaitRead();
    const int next = item + kStages * gridDim.x;
    if (next < g.items) {
      __syncthreads();
      if (threadIdx.x == 0) load(next, stage);
    }
  }
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_MMA_ROW_FORWARD_CUH_
