// Local attention on NVIDIA GPUs in ordinary arithmetic, for every type.
//
// A thread owns a run of neighbouring queries (in the last pass: keys) of one head, or a slice of
// their channels, and walks over the rows of the window. Lanes lie along the channels first, so a
// warp reads whole pixels; windows overlap inside of the L1 cache, and nothing is staged. A key
// that was read serves all queries of the run that see it.
#ifndef SASA_TF_NATIVE_CUDA_RUNS_CUH_
#define SASA_TF_NATIVE_CUDA_RUNS_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/element_types.cuh"
#include "cuda/kernel_launch.cuh"
#include "cuda/table_gradients.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// What the kernels need of a problem, and how threads are laid over it.
struct Grid {
  int height, width, heads, depth, half;
  int rows, row_dilation, column_dilation;  // of the window; its columns are a template argument
  bool mask_border, has_key, has_relative;
  float scale;
  int parts;  // that query, key, value and their gradients share pixel by pixel
  DType type;
  int runs;                                 // of queries in an image row
  int block_heads, block_runs, block_rows;  // that a thread block covers
  int tiles_x, tiles_y, tiles_n;            // thread blocks' worth of work in an image
  int tiles;
};

// Numbers of a type that is known when the program runs; all threads agree on it.
struct Numbers {
  const char* first;
  DType type;

  // Reads kCount numbers from `at`, zeros where there are none or beyond `count`; fours are whole.
  template <int kCount>
  __device__ void Load(int64_t at, bool there, int count, float (&to)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const bool all = there && i < count;
      if (type == DType::kFloat32) {
        float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
        if (all) four = __ldg(reinterpret_cast<const float4*>(first + (at + i) * 4));
        to[i] = four.x;
        to[i + 1] = four.y;
        to[i + 2] = four.z;
        to[i + 3] = four.w;
      } else {
        uint2 words = make_uint2(0, 0);
        if (all) words = __ldg(reinterpret_cast<const uint2*>(first + (at + i) * 2));
        const bool brain = type == DType::kBfloat16;
        const float2 low = brain ? UnpackX2(words.x, __nv_bfloat16()) : UnpackX2(words.x, __half());
        const float2 high = brain ? UnpackX2(words.y, __nv_bfloat16()) : UnpackX2(words.y, __half());
        to[i] = low.x;
        to[i + 1] = low.y;
        to[i + 2] = high.x;
        to[i + 3] = high.y;
      }
    }
  }
};

struct Results {
  char* first;
  DType type;

  template <int kCount>
  __device__ void Store(const float (&from)[kCount], float factor, int count, int64_t at) const {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      if (i >= count) continue;
      const float four[4] = {from[i] * factor, from[i + 1] * factor, from[i + 2] * factor,
                             from[i + 3] * factor};
      if (type == DType::kFloat32) {
        *reinterpret_cast<float4*>(first + (at + i) * 4) =
            make_float4(four[0], four[1], four[2], four[3]);
      } else {
        const bool brain = type == DType::kBfloat16;
        *reinterpret_cast<uint2*>(first + (at + i) * 2) =
            brain ? make_uint2(PackX2<__nv_bfloat16>(four[0], four[1]),
                               PackX2<__nv_bfloat16>(four[2], four[3]))
                  : make_uint2(PackX2<__half>(four[0], four[1]), PackX2<__half>(four[2], four[3]));
      }
    }
  }
};

template <int kNumber>
using Fixed = std::integral_constant<int, kNumber>;

// Sums over the lanes that hold the slices of one head.
template <int kLanes>
__device__ inline float HeadSum(float x) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(kFullMask, x, distance);
  }
  return x;
}

template <int kCount>
__device__ inline float Dot(const float (&a)[kCount], const float* b, float sum) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum = fmaf(a[i], b[i], sum);
  return sum;
}

// Static facts of one kernel: channels a thread holds, lanes a head takes, length of a run and
// columns of the window. Heads may be narrower than their lanes hold.
template <int kSlice_, int kLanes_, int kRun_, int kColumns_, int kBlocks_>
struct Shape {
  static constexpr int kSlice = kSlice_, kLanes = kLanes_, kRun = kRun_, kColumns = kColumns_;
  static constexpr int kWide = kSlice * kLanes;
  static constexpr int kReach = kRun + kColumns - 1;
  static constexpr int kThreads = 128, kBlocks = kBlocks_;  // blocks: at a time on a multiprocessor
};

// The tables in shared memory, lines padded by zeros: rows' channels, then columns'.
template <typename S>
__device__ void LoadTables(const Grid& g, const float* rows, const float* columns, float* tables) {
  const int count = (g.rows + S::kColumns) * S::kWide;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int line = i / S::kWide, channel = i % S::kWide;
    float x = 0.f;
    if (g.has_relative && channel < g.depth) {
      if (line < g.rows && channel < g.half) x = rows[line * g.half + channel];
      if (line >= g.rows && channel >= g.half) {
        x = columns[(line - g.rows) * g.half + channel - g.half];
      }
    }
    tables[i] = x;
  }
  __syncthreads();
}

// Where a thread works: which slice of which head, and the first pixel of its run.
template <typename S>
struct Place {
  int image, head, slice, y, x;
  int count;  // of the slice's channels that there are
  bool live;

  __device__ Place(const Grid& g, int tile) {
    int rest = threadIdx.x;
    slice = rest % S::kLanes;
    count = g.depth - slice * S::kSlice;
    rest /= S::kLanes;
    head = rest % g.block_heads;
    rest /= g.block_heads;
    int run = rest % g.block_runs;
    y = rest / g.block_runs;
    live = y < g.block_rows;
    head += tile % g.tiles_n * g.block_heads;
    tile /= g.tiles_n;
    run += tile % g.tiles_x * g.block_runs;
    tile /= g.tiles_x;
    y += tile % g.tiles_y * g.block_rows;
    image = tile / g.tiles_y;
    live = live && head < g.heads && run < g.runs && y < g.height;
    if (!live) head = run = y = 0;
    const int phase_runs = g.runs / g.column_dilation;
    x = run / phase_runs + run % phase_runs * S::kRun * g.column_dilation;
  }

  __device__ int X(const Grid& g, int i) const { return x + i * g.column_dilation; }
  __device__ bool Inside(const Grid& g, int column) const {
    return live && column >= 0 && column < g.width;
  }
  // Of the head, among all pixels'.
  __device__ int64_t Head(const Grid& g, int row, int column) const {
    const int64_t line = static_cast<int64_t>(image) * g.height + row;
    return (line * g.width + column) * g.heads + head;
  }
  // Of the slice's first channel in the image's first pixel.
  __device__ int64_t Origin(const Grid& g, int parts) const {
    const int64_t pixels = static_cast<int64_t>(image) * g.height * g.width;
    return (pixels * g.heads * parts + head) * g.depth + slice * S::kSlice;
  }
};

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    Forward(Grid g, Numbers query, Numbers key, Numbers value, const float* __restrict__ rows,
            const float* __restrict__ columns, Results output, float* __restrict__ log_sum) {
  extern __shared__ float tables[];
  LoadTables<S>(g, rows, columns, tables);
  for (int tile = blockIdx.x; tile < g.tiles; tile += gridDim.x) {
    const Place<S> at(g, tile);
    const float* row_table = tables + at.slice * S::kSlice;
    const float* column_table = row_table + g.rows * S::kWide;
    // With the numbers from a pixel to the next: of the parts, and of arrays of one.
    const int64_t origin = at.Origin(g, g.parts), own_origin = at.Origin(g, 1);
    const int own_step = g.heads * g.depth, step = g.parts * own_step;
    float q[S::kRun][S::kSlice], sum[S::kRun][S::kSlice] = {}, columns_term[S::kRun][S::kColumns];
    float top[S::kRun], total[S::kRun];
#pragma unroll
    for (int j = 0; j < S::kRun; ++j) {
      const int x = at.X(g, j);
      query.Load(origin + (at.y * g.width + x) * step, at.Inside(g, x), at.count, q[j]);
#pragma unroll
      for (int i = 0; i < S::kSlice; ++i) q[j][i] *= g.scale * kLog2E;
      top[j] = kMaskedLogit;
      total[j] = 0.f;
#pragma unroll
      for (int b = 0; b < S::kColumns; ++b) {
        const int column = at.X(g, j + b - S::kColumns / 2);
        const bool masked = g.mask_border && (column < 0 || column >= g.width);
        columns_term[j][b] = Dot(q[j], column_table + b * S::kWide, masked ? kMaskedLogit : 0.f);
      }
    }
#pragma unroll 1
    for (int a = 0; a < g.rows; ++a) {
      const int y = at.y + (a - g.rows / 2) * g.row_dilation;
      const bool row_inside = y >= 0 && y < g.height;
      if (g.mask_border && __all_sync(kFullMask, !row_inside)) continue;
      const int64_t line = origin + static_cast<int64_t>(y) * g.width * step;
      const float start = g.mask_border && !row_inside ? kMaskedLogit : 0.f;
      float logits[S::kRun][S::kColumns];
#pragma unroll
      for (int j = 0; j < S::kRun; ++j) {
        const float term = Dot(q[j], row_table + a * S::kWide, start);
#pragma unroll
        for (int b = 0; b < S::kColumns; ++b) logits[j][b] = columns_term[j][b] + term;
      }
#pragma unroll
      for (int n = 0; n < S::kReach; ++n) {
        const int x = at.X(g, n - S::kColumns / 2);
        float k[S::kSlice];
        key.Load(line + x * step, g.has_key && row_inside && at.Inside(g, x), at.count, k);
#pragma unroll
        for (int j = 0; j < S::kRun; ++j) {
          if (n - j >= 0 && n - j < S::kColumns) logits[j][n - j] = Dot(q[j], k, logits[j][n - j]);
        }
      }
#pragma unroll
      for (int j = 0; j < S::kRun; ++j) {
        float highest = top[j];
#pragma unroll
        for (int b = 0; b < S::kColumns; ++b) {
          logits[j][b] = HeadSum<S::kLanes>(logits[j][b]);
          highest = fmaxf(highest, logits[j][b]);
        }
        const float shrink = Exp2Approx(top[j] - highest);
        top[j] = highest;
        total[j] *= shrink;
#pragma unroll
        for (int i = 0; i < S::kSlice; ++i) sum[j][i] *= shrink;
#pragma unroll
        for (int b = 0; b < S::kColumns; ++b) {
          logits[j][b] = Exp2Approx(logits[j][b] - highest);
          total[j] += logits[j][b];
        }
      }
#pragma unroll
      for (int n = 0; n < S::kReach; ++n) {
        const int x = at.X(g, n - S::kColumns / 2);
        float v[S::kSlice];
        value.Load(line + x * step, row_inside && at.Inside(g, x), at.count, v);
#pragma unroll
        for (int j = 0; j < S::kRun; ++j) {
          if (n - j >= 0 && n - j < S::kColumns) {
#pragma unroll
            for (int i = 0; i < S::kSlice; ++i) {
              sum[j][i] = fmaf(logits[j][n - j], v[i], sum[j][i]);
            }
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < S::kRun; ++j) {
      const int x = at.X(g, j);
      if (!at.Inside(g, x)) continue;
      output.Store(sum[j], 1.f / total[j], at.count, own_origin + (at.y * g.width + x) * own_step);
      if (at.slice == 0) log_sum[at.Head(g, at.y, x)] = kLn2 * (top[j] + log2f(total[j]));
    }
  }
}

// Gradients of queries and tables, and the sums of output times upstream ("delta").
template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    QueryBackward(Grid g, Numbers query, Numbers key, Numbers value, const float* __restrict__ rows,
                  const float* __restrict__ columns, Numbers output,
                  const float* __restrict__ log_sum, Numbers upstream, Results query_gradient,
                  float* __restrict__ deltas, float* __restrict__ partials) {
  extern __shared__ float tables[];
  LoadTables<S>(g, rows, columns, tables);
  const int lines = g.rows + S::kColumns, own = lines * g.half;
  // Each warp sums the tables' gradients in a place of its own.
  float* sums = tables + lines * S::kWide;
  for (int i = threadIdx.x; i < own * (blockDim.x / kWarpSize); i += blockDim.x) sums[i] = 0.f;
  __syncthreads();
  sums += threadIdx.x / kWarpSize * own;
  const int lane = threadIdx.x % kWarpSize;

  for (int tile = blockIdx.x; tile < g.tiles; tile += gridDim.x) {
    const Place<S> at(g, tile);
    const float* row_table = tables + at.slice * S::kSlice;
    const float* column_table = row_table + g.rows * S::kWide;
    // With the numbers from a pixel to the next: of the parts, and of arrays of one.
    const int64_t origin = at.Origin(g, g.parts), own_origin = at.Origin(g, 1);
    const int own_step = g.heads * g.depth, step = g.parts * own_step;
    float q[S::kRun][S::kSlice], up[S::kRun][S::kSlice], dq[S::kRun][S::kSlice] = {};
    float columns_term[S::kRun][S::kColumns], columns_sum[S::kRun][S::kColumns] = {};
    float lse[S::kRun], delta[S::kRun];
#pragma unroll
    for (int j = 0; j < S::kRun; ++j) {
      const int x = at.X(g, j), pixel = at.y * g.width + x;
      const bool inside = at.Inside(g, x);
      query.Load(origin + pixel * step, inside, at.count, q[j]);
      upstream.Load(own_origin + pixel * own_step, inside, at.count, up[j]);
      float out[S::kSlice];
      output.Load(own_origin + pixel * own_step, inside, at.count, out);
      delta[j] = HeadSum<S::kLanes>(Dot(up[j], out, 0.f));
      lse[j] = kInvalidLse;  // of a query that is not there: weights of zero
      if (inside) {
        const int64_t head = at.Head(g, at.y, x);
        lse[j] = log_sum[head] * kLog2E;
        if (at.slice == 0) deltas[head] = delta[j];
      }
#pragma unroll
      for (int i = 0; i < S::kSlice; ++i) q[j][i] *= g.scale * kLog2E;
#pragma unroll
      for (int b = 0; b < S::kColumns; ++b) {
        const int column = at.X(g, j + b - S::kColumns / 2);
        const bool masked = g.mask_border && (column < 0 || column >= g.width);
        columns_term[j][b] = Dot(q[j], column_table + b * S::kWide, masked ? kMaskedLogit : 0.f);
      }
    }
#pragma unroll 1
    for (int a = 0; a < g.rows; ++a) {
      const int y = at.y + (a - g.rows / 2) * g.row_dilation;
      const bool row_inside = y >= 0 && y < g.height;
      const int64_t line = origin + static_cast<int64_t>(y) * g.width * step;
      const float start = g.mask_border && !row_inside ? kMaskedLogit : 0.f;
      float logits[S::kRun][S::kColumns], slopes[S::kRun][S::kColumns];
#pragma unroll
      for (int j = 0; j < S::kRun; ++j) {
        const float term = Dot(q[j], row_table + a * S::kWide, start);
#pragma unroll
        for (int b = 0; b < S::kColumns; ++b) {
          logits[j][b] = columns_term[j][b] + term;
          slopes[j][b] = 0.f;
        }
      }
#pragma unroll
      for (int n = 0; n < S::kReach; ++n) {
        const int x = at.X(g, n - S::kColumns / 2);
        const bool inside = row_inside && at.Inside(g, x);
        float k[S::kSlice], v[S::kSlice];
        key.Load(line + x * step, g.has_key && inside, at.count, k);
        value.Load(line + x * step, inside, at.count, v);
#pragma unroll
        for (int j = 0; j < S::kRun; ++j) {
          if (n - j >= 0 && n - j < S::kColumns) {
            logits[j][n - j] = Dot(q[j], k, logits[j][n - j]);
            slopes[j][n - j] = Dot(up[j], v, slopes[j][n - j]);
          }
        }
      }
      float row_sum[S::kRun];
#pragma unroll
      for (int j = 0; j < S::kRun; ++j) {
        row_sum[j] = 0.f;
#pragma unroll
        for (int b = 0; b < S::kColumns; ++b) {
          const float weight = Exp2Approx(HeadSum<S::kLanes>(logits[j][b]) - lse[j]);
          slopes[j][b] = weight * (HeadSum<S::kLanes>(slopes[j][b]) - delta[j]);
          row_sum[j] += slopes[j][b];
          columns_sum[j][b] += slopes[j][b];
        }
      }
#pragma unroll
      for (int n = 0; n < S::kReach; ++n) {
        const int x = at.X(g, n - S::kColumns / 2);
        float k[S::kSlice];
        key.Load(line + x * step, g.has_key && row_inside && at.Inside(g, x), at.count, k);
#pragma unroll
        for (int j = 0; j < S::kRun; ++j) {
          if (n - j >= 0 && n - j < S::kColumns) {
#pragma unroll
            for (int i = 0; i < S::kSlice; ++i) dq[j][i] = fmaf(slopes[j][n - j], k[i], dq[j][i]);
          }
        }
      }
      if (g.has_relative) {
#pragma unroll
        for (int i = 0; i < S::kSlice; ++i) {
          float sum = 0.f;
#pragma unroll
          for (int j = 0; j < S::kRun; ++j) {
            dq[j][i] = fmaf(row_sum[j], row_table[a * S::kWide + i], dq[j][i]);
            sum = fmaf(row_sum[j], q[j][i], sum);
          }
          sum = WarpReduceSum<S::kLanes>(at.live ? sum : 0.f);
          const int channel = at.slice * S::kSlice + i;
          if (lane < S::kLanes && channel < g.half) sums[a * g.half + channel] += sum;
        }
      }
    }
    if (g.has_relative) {
#pragma unroll
      for (int b = 0; b < S::kColumns; ++b) {
#pragma unroll
        for (int i = 0; i < S::kSlice; ++i) {
          float sum = 0.f;
#pragma unroll
          for (int j = 0; j < S::kRun; ++j) {
            dq[j][i] = fmaf(columns_sum[j][b], column_table[b * S::kWide + i], dq[j][i]);
            sum = fmaf(columns_sum[j][b], q[j][i], sum);
          }
          sum = WarpReduceSum<S::kLanes>(at.live ? sum : 0.f);
          const int channel = at.slice * S::kSlice + i - g.half;
          if (lane < S::kLanes && channel >= 0 && channel < g.half)
            sums[(g.rows + b) * g.half + channel] += sum;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < S::kRun; ++j) {
      const int x = at.X(g, j);
      if (at.Inside(g, x)) {
        query_gradient.Store(dq[j], g.scale, at.count, origin + (at.y * g.width + x) * step);
      }
    }
  }
  __syncthreads();
  sums = tables + lines * S::kWide;
  for (int i = threadIdx.x; i < own; i += blockDim.x) {
    float sum = 0.f;
    for (int warp = 0; warp < blockDim.x / kWarpSize; ++warp) sum += sums[warp * own + i];
    partials[static_cast<int64_t>(blockIdx.x) * own + i] = sum;
  }
}

// Gradients of keys and values, gathered from the queries whose windows hold them.
template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    KeyBackward(Grid g, Numbers query, Numbers key, Numbers value, const float* __restrict__ rows,
                const float* __restrict__ columns, const float* __restrict__ log_sum,
                Numbers upstream, const float* __restrict__ deltas, Results key_gradient,
                Results value_gradient, TableSums sums) {
  extern __shared__ float tables[];
  LoadTables<S>(g, rows, columns, tables);
  for (int tile = blockIdx.x; tile < g.tiles; tile += gridDim.x) {
    const Place<S> at(g, tile);
    const float* row_table = tables + at.slice * S::kSlice;
    const float* column_table = row_table + g.rows * S::kWide;
    // With the numbers from a pixel to the next: of the parts, and of arrays of one.
    const int64_t origin = at.Origin(g, g.parts), own_origin = at.Origin(g, 1);
    const int own_step = g.heads * g.depth, step = g.parts * own_step;
    float k[S::kRun][S::kSlice], v[S::kRun][S::kSlice];
    float dk[S::kRun][S::kSlice] = {}, dv[S::kRun][S::kSlice] = {};
#pragma unroll
    for (int j = 0; j < S::kRun; ++j) {
      const int x = at.X(g, j), here = (at.y * g.width + x) * step;
      key.Load(origin + here, g.has_key && at.Inside(g, x), at.count, k[j]);
      value.Load(origin + here, at.Inside(g, x), at.count, v[j]);
    }
#pragma unroll 1
    for (int a = 0; a < g.rows; ++a) {
      const int y = at.y - (a - g.rows / 2) * g.row_dilation;  // of the queries
      const bool row_inside = y >= 0 && y < g.height;
      if (__all_sync(kFullMask, !row_inside)) continue;
      const int64_t line = static_cast<int64_t>(y) * g.width;
#pragma unroll
      for (int n = 0; n < S::kReach; ++n) {
        const int x = at.X(g, n - S::kColumns / 2);
        const bool inside = row_inside && at.Inside(g, x);
        float q[S::kSlice], up[S::kSlice], lse = kInvalidLse, delta = 0.f;
        query.Load(origin + (line + x) * step, inside, at.count, q);
        upstream.Load(own_origin + (line + x) * own_step, inside, at.count, up);
        if (inside) {
          const int64_t head = at.Head(g, y, x);
          lse = __ldg(log_sum + head) * kLog2E;
          delta = __ldg(deltas + head);
        }
#pragma unroll
        for (int i = 0; i < S::kSlice; ++i) q[i] *= g.scale * kLog2E;
        const float term = Dot(q, row_table + a * S::kWide, 0.f);
#pragma unroll
        for (int j = 0; j < S::kRun; ++j) {
          const int b = j - n + S::kColumns - 1;  // place of the key in the query's window
          if (b < 0 || b >= S::kColumns) continue;
          float logit = Dot(q, column_table + b * S::kWide, term);
          logit = HeadSum<S::kLanes>(Dot(q, k[j], logit));
          const float slope = HeadSum<S::kLanes>(Dot(up, v[j], 0.f));
          const float weight = Exp2Approx(logit - lse), ds = weight * (slope - delta);
#pragma unroll
          for (int i = 0; i < S::kSlice; ++i) {
            dk[j][i] = fmaf(ds, q[i], dk[j][i]);
            dv[j][i] = fmaf(weight, up[i], dv[j][i]);
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < S::kRun; ++j) {
      const int x = at.X(g, j);
      if (!at.Inside(g, x)) continue;
      const int64_t here = origin + (at.y * g.width + x) * step;
      if (g.has_key) key_gradient.Store(dk[j], kLn2, at.count, here);
      value_gradient.Store(dv[j], 1.f, at.count, here);
    }
  }
  SumTables(sums);
}

struct Launch {
  Grid grid;
  int threads;
};

// Lays threads over the images: few idle ones, and tiles near to square so that windows overlap.
template <typename S>
Launch Plan(const LocalAttentionProblem& p) {
  Grid g = {};
  g.height = static_cast<int>(p.height);
  g.width = static_cast<int>(p.width);
  g.heads = static_cast<int>(p.heads);
  g.depth = static_cast<int>(p.head_dim);
  g.half = g.depth / 2;
  g.rows = p.kernel_rows;
  g.row_dilation = p.dilation_rows;
  g.column_dilation = p.dilation_columns;
  g.mask_border = p.mask_border;
  g.has_key = p.has_key;
  g.has_relative = p.has_relative;
  g.scale = p.scale;
  g.parts = p.qkv_parts;
  g.type = p.type;
  g.runs = CeilDiv(CeilDiv(g.width, g.column_dilation), S::kRun) * g.column_dilation;
  g.block_heads = std::min(g.heads, std::max(1, 64 / S::kLanes));
  g.tiles_n = CeilDiv(g.heads, g.block_heads);
  const int pixel = g.block_heads * S::kLanes;
  double best = 0;
  int threads = 0;
  for (int runs = 1; runs <= g.runs && runs * pixel <= S::kThreads; ++runs) {
    for (int rows = 1; rows <= g.height && rows * runs * pixel <= S::kThreads; ++rows) {
      const int padded = CeilDiv(rows * runs * pixel, kWarpSize) * kWarpSize;
      const double tiles = double(CeilDiv(g.runs, runs)) * CeilDiv(g.height, rows);
      const double busy = double(g.runs) * g.height * pixel / (tiles * padded);
      const double area = double(runs) * S::kRun * rows;
      const double halo = (runs * S::kRun + S::kColumns - 1.) * (rows + g.rows - 1.) / area;
      const double score = busy / (1 + 0.1 * halo);
      if (score > best) {
        best = score;
        g.block_runs = runs;
        g.block_rows = rows;
        threads = padded;
      }
    }
  }
  g.tiles_x = CeilDiv(g.runs, g.block_runs);
  g.tiles_y = CeilDiv(g.height, g.block_rows);
  g.tiles = static_cast<int>(p.batch) * g.tiles_x * g.tiles_y * g.tiles_n;
  return {g, threads};
}

template <typename S>
int TableBytes(const Grid& g) {
  return static_cast<int>(sizeof(float)) * (g.rows + S::kColumns) * S::kWide;
}

inline Numbers From(const LocalAttentionProblem& p, const void* first) {
  return {static_cast<const char*>(first), p.type};
}
inline Results To(const LocalAttentionProblem& p, void* first) {
  return {static_cast<char*>(first), p.type};
}

constexpr int kNoLimit = 1 << 30;

template <typename S>
void LaunchForward(const LocalAttentionProblem& p, const ForwardArrays& a, cudaStream_t stream) {
  const Launch l = Plan<S>(p);
  const int bytes = TableBytes<S>(l.grid);
  const int workers = PersistentGridSize(Forward<S>, l.grid.tiles, l.threads, bytes, kNoLimit);
  LaunchKernel(Forward<S>, workers, l.threads, bytes, stream, l.grid, From(p, a.query), From(p, a.key),
          From(p, a.value), a.relative_rows, a.relative_columns, To(p, a.output), a.lse);
}

template <typename S>
TableSums LaunchQueryBackward(const LocalAttentionProblem& p, const BackwardArrays& a,
                              cudaStream_t stream) {
  const Launch l = Plan<S>(p);
  const int lines = l.grid.rows + S::kColumns;
  const int sums = static_cast<int>(sizeof(float)) * lines * l.grid.half * (l.threads / kWarpSize);
  const int bytes = TableBytes<S>(l.grid) + sums;
  const int workers = PersistentGridSize(QueryBackward<S>, l.grid.tiles, l.threads, bytes, kTableWorkers);
  LaunchKernel(QueryBackward<S>, workers, l.threads, bytes, stream, l.grid, From(p, a.query),
          From(p, a.key), From(p, a.value), a.relative_rows, a.relative_columns, From(p, a.output),
          a.lse, From(p, a.d_output), To(p, a.d_query), a.workspace, TablePartials(p, a));
  return SumsOf(p, a, workers, kLn2);
}

template <typename S>
void LaunchKeyBackward(const LocalAttentionProblem& p, const BackwardArrays& a,
                       const TableSums& sums, cudaStream_t stream) {
  const Launch l = Plan<S>(p);
  const int bytes = TableBytes<S>(l.grid);
  const int workers = PersistentGridSize(KeyBackward<S>, l.grid.tiles, l.threads, bytes, kNoLimit);
  LaunchKernel(KeyBackward<S>, workers, l.threads, bytes, stream, l.grid, From(p, a.query),
          From(p, a.key), From(p, a.value), a.relative_rows, a.relative_columns, a.lse,
          From(p, a.d_output), a.workspace, To(p, a.d_key), To(p, a.d_value), sums);
}

// Calls `launch` with the columns of the window, then with the slice and the lanes that hold a
// head.
template <typename Launch>
void WithShape(const LocalAttentionProblem& p, Launch launch) {
  auto with_columns = [&](auto columns) {
    if (p.head_dim <= 8) return launch(columns, Fixed<8>(), Fixed<1>());
    if (p.head_dim <= 16) return launch(columns, Fixed<16>(), Fixed<1>());
    if (p.head_dim <= 32) return launch(columns, Fixed<16>(), Fixed<2>());
    if (p.head_dim <= 64) return launch(columns, Fixed<16>(), Fixed<4>());
    launch(columns, Fixed<16>(), Fixed<8>());
  };
  if (p.kernel_columns == 3) with_columns(Fixed<3>());
  if (p.kernel_columns == 5) with_columns(Fixed<5>());
  if (p.kernel_columns == 7) with_columns(Fixed<7>());
  if (p.kernel_columns == 9) with_columns(Fixed<9>());
  if (p.kernel_columns == 11) with_columns(Fixed<11>());
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_RUNS_CUH_
