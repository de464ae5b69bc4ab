// The forward pass on the tensor cores: output and log-sum-exp of a patch of queries at a time.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/tma.cuh"
#include "cuda/ptx.cuh"
#include "cuda/launch.h"
#include "cuda/element_types.cuh"
#include "cuda/kernel_launch.cuh"
#include "cuda/mma_regions.cuh"
#include "cuda/mma_epilogue.cuh"
#include "cuda/mma_position_bias.cuh"
#include "cuda/mma_attention.cuh"
#include "cuda/table_gradients.cuh"
#include "cuda/mma_tiles.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// Sums of weights from which a row's output and log-sum-exp can be told although its logits were
// not compared with their maximum: far from where numbers end.
__device__ inline bool Told(float total) { return total > 0x1p-100f && total < 0x1p100f; }

// Stores the means of a patch's outputs over blocks of 2 x 2 pixels, which lie in rows of the sums
// whose numbers differ in two bits (of two heads), or in both halves and one bit.
template <typename S>
__device__ inline void StoreMeans(const Sums<S>& outputs, const MmaLane& lane, const Halves& inside,
                                  typename S::T* to) {
  constexpr bool kTwoHeads = S::kHeads == 2;
  constexpr int kColumnLanes = 4, kRowLanes = 16;  // to the same of the next column and row
  const bool first = (lane.id & (kTwoHeads ? kColumnLanes | kRowLanes : kColumnLanes)) == 0;
#pragma unroll
  for (int head = 0; head < S::kHeads; ++head) {
#pragma unroll
    for (int c = 0; c < S::kChunks; ++c) {
      float mean[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const auto& own = outputs[head][c];
        float x = kTwoHeads ? own[2 * head + i] : own[i] + own[2 + i];
        x += __shfl_xor_sync(kFullMask, x, kColumnLanes);
        if (kTwoHeads) x += __shfl_xor_sync(kFullMask, x, kRowLanes);
        mean[i] = x * kShareOfMean;
      }
      if (first && inside[head]) {
        *reinterpret_cast<uint32_t*>(to + head * S::kDepth + 8 * c) =
            PackX2<typename S::T>(mean[0], mean[1]);
      }
    }
  }
}

// Writing means takes registers, which the kernel is slower without: `kMeans` has them.
template <typename S, bool kMeans>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    Forward(TileGrid g, const __grid_constant__ RegionBoxes boxes,
            const typename S::T* __restrict__ query, const typename S::T* __restrict__ key,
            const typename S::T* __restrict__ value, const float* __restrict__ rows,
            const float* __restrict__ columns, typename S::T* __restrict__ output,
            float* __restrict__ log_sum, typename S::T* __restrict__ means) {
  using T = typename S::T;
  extern __shared__ __align__(1024) char memory[];
  const Tables<S> tables(memory + ByQueries<S>::kTables);
  const MmaLane lane;
  const uint32_t keys = SmemAddress(memory), values = keys + S::kRegion;
  boxes.Prefetch();
  GridDependencyWait();  // it may have written any of the arguments
  tables.Fill(g, rows, columns);
  Terms<S> terms(tables, lane, Way<S>(g, Area(), lane));
  char* room = memory + ByQueries<S>::kRooms + threadIdx.x / kWarpSize * ByQueries<S>::kRoom;
  const float factor = g.scale * kLog2E;
  // Weights in float16 end where those in bfloat16 do not, long before their sums.
  constexpr bool kCompare = std::is_same_v<T, __half>;
  Operands<S> q(lane, 20);
  const uint32_t ones[2] = {Hidden(PackX2<T>(1.f, 1.f), lane, 30),
                            Hidden(PackX2<T>(1.f, 1.f), lane, 31)};

  TmaBarrier arrivals(memory + ByQueries<S>::kArrivals);

  const Run run(g);
  Ring<S> ring;
  for (int tile = run.begin; tile < run.end; tile += run.step) {
    const Area area(g, tile, S::kRows, S::kColumns, S::kHeads);
    const Way<S> way(g, area, lane);
    ring.Turn(tile > run.begin && area.y > 0);
    // While all wait for their first tiles, lanes copy them sooner than boxes come.
    const bool by_boxes = boxes.there && tile > run.begin;
    __syncthreads();
    if (by_boxes) {
      if (threadIdx.x == 0) CopyBoxes<S>(area, ring, boxes, keys, arrivals);
    } else {
      CopyRegion<S>(g, area, ring, lane, key, g.parts, g.has_key, keys);
      CopyRegion<S>(g, area, ring, lane, value, g.parts, true, values);
    }
    const Shear shear(room, way.column);
    uint32_t q_at = way.First(area, g.parts, lane), output_at = way.First(area, 1, lane);
    Rows<S> next;
    Stores<S> stores(g, area, lane, 1);
    LoadRows<S>(query + q_at, way.Second(g.parts), way.Inside(way.begin), next);
    if (g.mask_border) terms.SetRows(area, lane, way);
    CpAsyncWaitAll();
    if (by_boxes) arrivals.Wait();
    __syncthreads();
    if (!way.live) continue;
    const int matrix_row = ring.At(way.top + lane.ldmatrix_row);
    Places<S, false> of_keys(keys, lane, matrix_row, way.begin);
    Places<S, true> of_values(values, lane, matrix_row, way.begin);
#pragma unroll 1
    for (int left = way.begin; left < way.end && left < area.columns; left += S::kPatchColumns) {
      const Halves inside = way.Inside(left);
      float row_terms[4];
      uint32_t column_terms[4];
      if (g.mask_border) terms.SetColumns(area, lane, way, left);
      q.Set(next);
      terms.Get(q, lane, way, shear, row_terms, column_terms);
      // A branch, lest these loads start before the last ones are waited for, and so both.
      if (left + S::kPatchColumns < way.end) {
        q_at += way.Step(g.parts);
        LoadRows<S>(query + q_at, way.Second(g.parts), way.Inside(left + S::kPatchColumns), next);
      }
      float top[2] = {0.f, 0.f}, total[4];
      Sums<S> sum;
      for (bool compare = kCompare;; compare = true) {
        if (compare) {
          top[0] = top[1] = kMaskedLogit;
#pragma unroll
          for (int step = 0; step < S::kSteps; ++step) {
            Pixels<S, false> k;
            k.Load(of_keys, step);
#pragma unroll
            for (int column = 0; column < 2; ++column) {
              float logit[4];
              terms.Of(2 * step + column, row_terms, column_terms, logit);
              Logits<S>(q, k.at[column], logit, logit);
#pragma unroll
              for (int i = 0; i < 4; ++i) top[i / 2] = fmaxf(top[i / 2], logit[i]);
            }
          }
          top[0] = QuadMax(top[0]) * factor;
          top[1] = QuadMax(top[1]) * factor;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[i] = 0.f;
#pragma unroll
          for (int plane = 0; plane < S::kPlanes; ++plane) {
            sum[plane / S::kChunks][plane % S::kChunks][i] = 0.f;
          }
        }
#pragma unroll
        for (int step = 0; step < S::kSteps; ++step) {
          Pixels<S, false> k;
          Pixels<S, true> v;
          float weight[2][4];
          k.Load(of_keys, step);
          v.Load(of_values, step);
#pragma unroll
          for (int column = 0; column < 2; ++column) {
            terms.Of(2 * step + column, row_terms, column_terms, weight[column]);
            Logits<S>(q, k.at[column], weight[column], weight[column]);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              weight[column][i] = Exp2Approx(fmaf(weight[column][i], factor, -top[i / 2]));
            }
          }
          uint32_t weights[4];
          PackAFragment<T>(weight[0], weight[1], weights);
          Gather<S>(weights, v, sum);
          MmaM16N8K16<T>(total, weights[0], weights[1], weights[2], weights[3], ones[0], ones[1]);
        }
        const bool told = Told(total[0]) && Told(total[2]);
        if (compare || __all_sync(kFullMask, told || !inside.any())) break;
      }
      Scale<S>(RcpApprox(total[0]), RcpApprox(total[2]), sum);
      stores.Store(sum, lane, room, output);
      if constexpr (kMeans) {
        const int64_t mean = area.Upstream(g, way.top + way.row[0], left + way.column);
        StoreMeans<S>(sum, lane, inside, means + mean * S::kDepth + 2 * lane.pair);
      }
      stores.Advance();
      const float all = lane.pair ? total[2] : total[0], greatest = lane.pair ? top[1] : top[0];
      const float log_of_sum = kLn2 * (greatest + Log2Approx(all));
      if (inside.OfNumber(lane)) {
        log_sum[output_at / S::kDepth + lane.pair * way.Second(1)] = log_of_sum;
      }
      output_at += way.Step(1);
      of_keys.Advance();
      of_values.Advance();
    }
  }
}

template <typename S, bool kMeans>
void LaunchForward(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  using T = typename S::T;
  const auto kernel = Forward<S, kMeans>;
  const TileGrid g = PlanPatches<S>(p);
  constexpr int kBytes = ByQueries<S>::kBytes;
  const int workers = RunsOf(g, PersistentGridSize(kernel, g.tiles, S::kThreads, kBytes, g.tiles));
  const RegionBoxes boxes =
      MakeRegionBoxes<S>(kernel, p, p.has_key, a.key, p.qkv_parts, a.value, p.qkv_parts);
  LaunchPdl(kernel, workers, S::kThreads, kBytes, stream, g, boxes,
               static_cast<const T*>(a.query), static_cast<const T*>(a.key),
               static_cast<const T*>(a.value), a.relative_rows, a.relative_columns,
               static_cast<T*>(a.output), a.lse, static_cast<T*>(a.pooled_output));
}

// As fast as was found on an H100.
template <typename T, typename Launch>
void WithForwardShape(const LocalAttentionProblem& p, T, Launch launch) {
  if (p.head_dim == 8) return launch(Shape<T, 8, 4, 28, 5>());
  if (p.head_dim == 16) return launch(Shape<T, 16, 7, 28, 2, true>());
  if (p.head_dim == 32 && p.width <= 16) return launch(Shape<T, 32, 4, 16, 4, true>());
  if (p.head_dim == 32) return launch(Shape<T, 32, 4, 32, 2, false, true>());
  if (p.width <= 8) return launch(Shape<T, 64, 4, 8, 3, true>());
  launch(Shape<T, 64, 4, 16, 2, true>());
}

}  // namespace

bool PatchesCan(const LocalAttentionProblem& p) {
  const bool width = p.head_dim == 8 || p.head_dim == 16 || p.head_dim == 32 || p.head_dim == 64;
  // Each block of heads has a worker, and places are numbers of 32 bits.
  const double numbers = 1. * p.batch * p.height * p.width * p.qkv_parts * p.heads * p.head_dim;
  return width && p.heads <= kTableWorkers && numbers < 0x1p32 && p.type != DType::kFloat32 &&
         p.kernel_rows == kKernel && p.kernel_columns == kKernel && p.scale >= kSmallestScale;
}

void PatchesForward(const LocalAttentionProblem& p, const ForwardArrays& arrays,
                    cudaStream_t stream) {
  WithType(p, [&](auto zero) {
    WithForwardShape(p, zero, [&](auto shape) {
      const auto launch = p.pool_size == 1 ? LaunchForward<decltype(shape), false>
                                           : LaunchForward<decltype(shape), true>;
      launch(p, arrays, stream);
    });
  });
}

}  // namespace sasa
