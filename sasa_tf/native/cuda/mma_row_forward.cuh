// Forward pass of small images: see mma_row_tile.cuh for row tiles.
//
// A persistent CTA loads the query, key and value of an image of one head, its item, into shared
// memory by TMA, and its warps compute the row tiles. For a row tile:
//   1. Load the queries into registers by ldmatrix, and compute the position bias.
//   2. In steps of 16 keys, one row of 16 columns or two of 8: S = bias + QK^T, P = exp2(S), O +=
//      PV, and the row sums of P by a product with ones. Steps outside of the image are skipped.
//   3. If the border is not masked, keys outside of the image take part in the softmax, with zero
//      keys and values. Their logits are sums of a row and a column entry, so the sum of their
//      exponentials follows from sums over rows and over columns.
//   4. Write O / row sum over the queries in shared memory, from where TMA stores it, and store
//      LSE = max + log(row sum). The pooled output is the mean of these outputs.
//
// As in mma_forward.cuh, the row maximum is only subtracted if a row sum is out of range without.
#ifndef SASA_TF_NATIVE_CUDA_MMA_ROW_FORWARD_CUH_
#define SASA_TF_NATIVE_CUDA_MMA_ROW_FORWARD_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/element_types.cuh"
#include "cuda/mma_fragment.cuh"
#include "cuda/mma_row_bias.cuh"
#include "cuda/mma_row_tile.cuh"
#include "cuda/mma_warp_tile.cuh"
#include "cuda/ptx.cuh"
#include "cuda/tma.cuh"
#include "cuda/warp_reduce.cuh"

namespace sasa {
namespace {

// The CTAs of a kernel.
struct RowForwardTiles {
  int warps, min_ctas_per_sm;
};

struct RowForwardMaps {
  TensorMap query, key, value, output;
};

// Shared memory: the keys, values and queries of each stage, the position bias of each warp, and an
// mbarrier for each stage.
template <typename Traits, typename Config>
struct RowForwardLayout {
  static constexpr int kWarps = Config::kTiles.warps, kThreads = kWarps * kWarpSize;
  static constexpr int kStages = 2;  // an item is loaded while another is computed
  // Zeros before each image: a step of two rows may begin before it, or end after it.
  static constexpr int kPaddingBytes = Traits::kTileRows == 2 ? 1024 : 0;
  int image_bytes, stage_bytes, bias, barriers, bytes;

  __host__ __device__ explicit RowForwardLayout(const RowTileGrid& g) {
    image_bytes = kPaddingBytes + g.row_tiles * Traits::kTileBytes;
    stage_bytes = 3 * image_bytes;
    bias = kStages * stage_bytes;
    barriers = bias + kWarps * RowTileBias<Traits>::kBytes;
    bytes = barriers + kStages * Mbarrier::kBytes;
  }
};

// The keys of a row tile, in steps of 16.
template <typename Traits>
struct RowTileKeys {
  static constexpr int kSteps = Traits::kKeyRows / Traits::kTileRows;  // of all rows in the windows
  int begin, end;         // steps that have rows in the image
  uint32_t keys, values;  // addresses of the first step's, which may lie before the image

  // `keys`, `values`: of the image. The row tile's first row is `top`.
  __device__ RowTileKeys(const RowTileGrid& g, int top, uint32_t keys, uint32_t values) {
    const int first_row = top - Traits::kHalo;
    begin = max(0, -first_row / Traits::kTileRows);
    end = min(kSteps, (g.height - first_row + Traits::kTileRows - 1) / Traits::kTileRows);
    this->keys = keys + first_row * Traits::kRowBytes;
    this->values = values + first_row * Traits::kRowBytes;
  }
  __device__ static uint32_t Offset(int step) { return step * Traits::kTileBytes; }
  // The slot of RowTileBias for the row of a step's block.
  __device__ static int Slot(int step, int block) {
    return Traits::kTileRows == 1 ? step : 2 * step + block;
  }
};

// Attends with the queries of row tiles.
template <typename Traits>
class RowTileAttention {
 public:
  float acc[Traits::kHeadChunks][4];  // the unnormalized outputs
  // Of each half of the rows, the maximum that was subtracted from the logits (in log2, or 0), and
  // the sums of the exponentials; the latter as an accumulator with equal columns.
  float row_max[2], row_sum[4];

  __device__ RowTileAttention(const RowTileGrid& g, const MmaLane& lane)
      : query_offset_(RowTileLdmatrixOffset<Traits, true>(lane)),
        key_offset_(RowTileLdmatrixOffset<Traits, false>(lane)),
        scale_log2_(g.scale * kLog2E),
        outside_keys_(g, lane) {}

  // `valid`: whether each half of the lane's rows is a query.
  __device__ void Attend(const RowTileGrid& g, const MmaLane& lane, uint32_t queries, int top,
                         const RowTileKeys<Traits>& keys, const RowPredicate& valid,
                         RowTileBias<Traits>& bias) {
    LoadRowTile<Traits>(queries, query_offset_, q_);
    const bool outside = !g.mask_border;
    row_max[0] = row_max[1] = 0.f;
    for (bool subtract_max = false;; subtract_max = true) {
      bias.Compute(g, lane, q_, top, scale_log2_, columns_);
      bool in_range = true;
      float outside_sums[2] = {0.f, 0.f};  // the lane's parts
      if (subtract_max) {
        ComputeMax(lane, keys, bias);
        if (outside) {
          OutsideKeys<Traits>::SumWithMax(g, lane, bias, top, scale_log2_, row_max, outside_sums);
        }
        bias.SubtractMax(lane, row_max);
      } else if (outside) {
        in_range = outside_keys_.Sum(g, lane, bias, top, scale_log2_, outside_sums);
      }
      SumSteps(lane, keys, bias);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (outside) row_sum[2 * half] += QuadReduceSum(outside_sums[half]);
        in_range &= SumInRange(row_sum[2 * half]) || !valid[half];
      }
      if (subtract_max || __all_sync(kFullMask, in_range)) break;
    }
  }

  // Writes the normalized outputs over the row tile's queries.
  __device__ void WriteOutputs(uint32_t queries) const {
    const float weight[2] = {RcpApprox(row_sum[0]), RcpApprox(row_sum[2])};
#pragma unroll
    for (int i = 0; i < Traits::kSteps; ++i) {
      uint32_t o[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int half = j % 2;
        const float(&fragment)[4] = acc[2 * i + j / 2];
        o[j] = PackX2<Bfloat16>(fragment[2 * half] * weight[half],
                                fragment[2 * half + 1] * weight[half]);
      }
      StmatrixX4(queries + (query_offset_ ^ 32 * i), o[0], o[1], o[2], o[3]);
    }
  }

 private:
  using Logits = float[2][4];  // of a step's two blocks

  __device__ void ComputeLogits(const RowTileKeys<Traits>& keys, int step, Logits& s) const {
    const uint32_t from = keys.keys + keys.Offset(step);
#pragma unroll
    for (int i = 0; i < Traits::kSteps; ++i) {
      uint32_t k[4];
      LdmatrixX4(from + (key_offset_ ^ 32 * i), k);
#pragma unroll
      for (int block = 0; block < 2; ++block) {
        const auto& c = i == 0 ? columns_[block % Traits::kBlocks]
                               : const_cast<const float(&)[4]>(s[block]);
        MmaM16N8K16<Bfloat16>(s[block], c, q_[i][0], q_[i][1], q_[i][2], q_[i][3], k[2 * block],
                              k[2 * block + 1]);
      }
    }
  }

  // The logits are in log2 then, with the row part of the bias.
  __device__ float LogitInLog2(const MmaLane& lane, const RowTileBias<Traits>& bias, int step,
                               const Logits& s, int block, int i) const {
    const int slot = RowTileKeys<Traits>::Slot(step, block);
    return fmaf(s[block][i], scale_log2_, bias.RowPart(lane, i / 2, slot));
  }

  // Adds a step to the outputs and the row sums.
  __device__ void AddStep(const MmaLane& lane, const RowTileKeys<Traits>& keys,
                          const RowTileBias<Traits>& bias, int step, Logits& s) {
#pragma unroll
    for (int block = 0; block < 2; ++block) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[block][i] = Exp2Approx(LogitInLog2(lane, bias, step, s, block, i));
      }
    }
    uint32_t p[4];
    PackAFragment<Bfloat16>(s[0], s[1], p);
    const uint32_t from = keys.values + keys.Offset(step);
#pragma unroll
    for (int i = 0; i < Traits::kSteps; ++i) {
      uint32_t v[4];
      LdmatrixX4Trans(from + (query_offset_ ^ 32 * i), v);
      MmaM16N8K16<Bfloat16>(acc[2 * i], p[0], p[1], p[2], p[3], v[0], v[1]);
      MmaM16N8K16<Bfloat16>(acc[2 * i + 1], p[0], p[1], p[2], p[3], v[2], v[3]);
    }
    MmaRowSum<Bfloat16>(p, row_sum);
  }

  __device__ void SumSteps(const MmaLane& lane, const RowTileKeys<Traits>& keys,
                           const RowTileBias<Traits>& bias) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      row_sum[i] = 0.f;
#pragma unroll
      for (int c = 0; c < Traits::kHeadChunks; ++c) acc[c][i] = 0.f;
    }
    // Two at a time, whose instructions overlap.
    int step = keys.begin;
#pragma unroll 1
    for (; step + 1 < keys.end; step += 2) {
      Logits s[2];
      ComputeLogits(keys, step, s[0]);
      ComputeLogits(keys, step + 1, s[1]);
      AddStep(lane, keys, bias, step, s[0]);
      AddStep(lane, keys, bias, step + 1, s[1]);
    }
    if (step < keys.end) {
      Logits s;
      ComputeLogits(keys, step, s);
      AddStep(lane, keys, bias, step, s);
    }
  }

  // The row maxima of the logits of keys in the image.
  __device__ void ComputeMax(const MmaLane& lane, const RowTileKeys<Traits>& keys,
                             const RowTileBias<Traits>& bias) {
    row_max[0] = row_max[1] = kMaskedLogit;
#pragma unroll 1
    for (int step = keys.begin; step < keys.end; ++step) {
      Logits s;
      ComputeLogits(keys, step, s);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int half = i % 4 / 2;
        row_max[half] = fmaxf(row_max[half], LogitInLog2(lane, bias, step, s, i / 4, i % 4));
      }
    }
    row_max[0] = QuadMax(row_max[0]);
    row_max[1] = QuadMax(row_max[1]);
  }

  const uint32_t query_offset_, key_offset_;  // see RowTileLdmatrixOffset; values have the queries'
  const float scale_log2_;
  const OutsideKeys<Traits> outside_keys_;
  RowTileFragment<Traits> q_;
  float columns_[Traits::kBlocks][4];  // the column part of the bias
};

// Stores the averages of 2 x 2 outputs, of two rows of an image in shared memory. `to`: the first.
template <typename Traits>
__device__ inline void StorePooledRows(const RowTileGrid& g, const MmaLane& lane, const char* rows,
                                       Bfloat16* to) {
  constexpr int kPieces = Traits::kColumns / 2 * Traits::kHeadChunks;  // of 16 bytes
#pragma unroll
  for (int i = 0; i < CeilDiv(kPieces, kWarpSize); ++i) {
    const int piece = i * kWarpSize + lane.id;
    const int x = piece / Traits::kHeadChunks, chunk = piece % Traits::kHeadChunks;
    if (2 * x >= g.width) continue;
    float sums[8] = {};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int pixel = j / 2 * Traits::kColumns + 2 * x + j % 2;
      const uint4 packed =
          *reinterpret_cast<const uint4*>(rows + Traits::SwizzledOffset(pixel, chunk));
      const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float2 two = UnpackX2(words[c], Bfloat16());
        sums[2 * c] += two.x;
        sums[2 * c + 1] += two.y;
      }
    }
    uint32_t means[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      means[c] = PackX2<Bfloat16>(sums[2 * c] * kPoolWeight, sums[2 * c + 1] * kPoolWeight);
    }
    *reinterpret_cast<uint4*>(to + x * g.heads.divisor * Traits::kHeadDim + 8 * chunk) =
        make_uint4(means[0], means[1], means[2], means[3]);
  }
}

// The forward pass of a CTA. `memory`: the bytes of the layout, aligned to 1024 bytes. `lse` may be
// null.
template <typename Traits, typename Config>
__device__ __forceinline__ void RowForwardCta(const RowTileGrid& g, const RowForwardMaps& maps,
                                              char* memory,
                                              const float* __restrict__ relative_rows,
                                              const float* __restrict__ relative_columns,
                                              bool store_output, float* __restrict__ lse,
                                              Bfloat16* __restrict__ pooled_output) {
  using Layout = RowForwardLayout<Traits, Config>;
  constexpr int kStages = Layout::kStages;
  const Layout layout(g);
  const MmaLane lane;
  const int warp = __shfl_sync(kFullMask, threadIdx.x / kWarpSize, 0);  // uniform for the compiler
  const uint32_t smem = SmemAddress(memory);
  const auto barrier = [&](int stage) {
    return Mbarrier(smem + layout.barriers + stage * Mbarrier::kBytes);
  };
  // Starts the loads of an item. Called by the first thread.
  const auto load = [&](uint32_t item, int stage) {
    const int channel = g.heads.DivmodInPlace(item) * Traits::kHeadDim;
    const uint32_t to = smem + stage * layout.stage_bytes + Layout::kPaddingBytes;
    barrier(stage).ArriveExpectTx(3 * (layout.image_bytes - Layout::kPaddingBytes));
    TmaLoad(maps.query, barrier(stage), to + 2 * layout.image_bytes, channel, 0, 0, item);
    TmaLoad(maps.key, barrier(stage), to, channel, 0, 0, item);
    TmaLoad(maps.value, barrier(stage), to + layout.image_bytes, channel, 0, 0, item);
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
  for (int i = threadIdx.x; i < 3 * kStages * Layout::kPaddingBytes / 16; i += Layout::kThreads) {
    constexpr int kPieces = Layout::kPaddingBytes / 16 + (Layout::kPaddingBytes == 0);
    char* padding = memory + i / kPieces * layout.image_bytes;
    reinterpret_cast<uint4*>(padding)[i % kPieces] = make_uint4(0, 0, 0, 0);
  }
  RowTileBias<Traits> bias(g, lane, memory + layout.bias + warp * RowTileBias<Traits>::kBytes,
                           relative_rows, relative_columns);
  RowTileAttention<Traits> attention(g, lane);
  __syncthreads();

  // Row tiles of a warp: with pooling, two rows of the image.
  const int unit = g.pool_shift == 0 ? 1 : 2 / Traits::kTileRows;
  unsigned loads = 0;  // that have been waited for
#pragma unroll 1
  for (int item = blockIdx.x; item < g.items; item += gridDim.x, ++loads) {
    const int stage = loads % kStages;
    barrier(stage).Wait(loads / kStages % 2);
    uint32_t image = item;
    const int head = g.heads.DivmodInPlace(image);
    const uint32_t keys = smem + stage * layout.stage_bytes + Layout::kPaddingBytes;
    const uint32_t values = keys + layout.image_bytes, queries = values + layout.image_bytes;
#pragma unroll 1
    for (int first = warp * unit; first < g.row_tiles; first += Layout::kWarps * unit) {
#pragma unroll 1
      for (int tile = first; tile < first + unit; ++tile) {
        const int top = tile * Traits::kTileRows;
        const uint32_t tile_smem = queries + tile * Traits::kTileBytes;
        const auto row = [&](int half) { return top + (Traits::kTileRows == 2 ? half : 0); };
        const auto column = [&](int half) {
          return lane.row + (Traits::kTileRows == 1 ? 8 * half : 0);
        };
        const auto is_query = [&](int half) {
          return row(half) < g.height && column(half) < g.width;
        };
        const RowPredicate valid = {is_query(0), is_query(1)};
        attention.Attend(g, lane, tile_smem, top, RowTileKeys<Traits>(g, top, keys, values), valid,
                         bias);
        attention.WriteOutputs(tile_smem);
        TmaStoreFence();
        __syncwarp();
        if (store_output && lane.id == 0) {
          TmaStore(maps.output, tile_smem, head * Traits::kHeadDim, 0, top, image);
        }
        if (lse != nullptr && valid.ForQuadLane(lane)) {
          const float sum = lane.pair ? attention.row_sum[2] : attention.row_sum[0];
          const float max = lane.pair ? attention.row_max[1] : attention.row_max[0];
          const int pixel = (image * g.height + row(lane.pair)) * g.width + column(lane.pair);
          lse[pixel * g.heads.divisor + head] = kLn2 * (max + Log2Approx(sum));
        }
      }
      if (g.pool_shift != 0) {
        const int pooled_row = image * (g.height / 2) + first * Traits::kTileRows / 2;
        const uint32_t pixel = pooled_row * (g.width / 2);
        StorePooledRows<Traits>(
            g, lane, memory + (queries - smem) + first * Traits::kTileBytes,
            pooled_output + (pixel * g.heads.divisor + head) * Traits::kHeadDim);
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
