// Local attention on the tensor cores of NVIDIA GPUs (sm_80 and later) for heads 32 or 64 wide, in
// half precision; local_attention_cuda_pairs.cu is for narrow heads.
//
// A warp owns a patch of 4 x 4 pixels of one head, which is the 16 rows of a matrix instruction;
// the pixels that the patch's windows cover (10 x 10 for a window of 7) are its columns, so about
// half of the logits that it computes are used. Position, window and border are a row term plus a
// column term of each logit; they too are matrix products, of the patch's terms with the one-hot
// rows and columns of the covered pixels, so that logits leave the tensor cores complete.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_instructions.cuh"
#include "cuda_launch.h"
#include "cuda_numbers.cuh"
#include "cuda_table_sums.cuh"
#include "cuda_tiles.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

constexpr int kPatch = 4;          // pixels along each side
constexpr int kTile = 2 * kPatch;  // that a thread block owns, of one head
constexpr int kWarps = 4;          // each owns a patch of the tile
constexpr int kThreads = 32 * kWarps;
constexpr int kKernel = 7;                  // window, rows and columns
constexpr int kSide = kTile + kKernel - 1;  // of the region that a thread block loads
constexpr int kReachSide = kPatch + kKernel - 1;
constexpr int kCovered = kReachSide * kReachSide;  // pixels that the patch's windows cover
constexpr int kSteps = (kCovered + 15) / 16;
constexpr int kSlots = 16 * kSteps;  // covered pixels, padded
// Pixels from a row of the region to the next in shared memory: as many as a row of covered pixels
// modulo 8, so that 8 covered pixels in a row lie in different banks, across its end too.
constexpr int kStride = kReachSide + 8;
static_assert(kStride >= kSide);
constexpr int kPlane = kSide * kStride * 16 + 80;  // bytes; 16 more than a multiple of all banks
static_assert(kPlane % 128 == 16);
constexpr int kTermSlots = 24;  // rows, columns and "no pixel", padded
constexpr int kColumnSlot = kReachSide, kNowhereSlot = 2 * kReachSide;
constexpr int kTermStride = 24;  // of a query's terms in shared memory; no conflicts

template <typename T_, int kDepth_>
struct Head {
  using T = T_;
  static constexpr int kDepth = kDepth_, kHalf = kDepth / 2;
  static constexpr int kChunks = kDepth / 8;           // of 8 channels
  static constexpr int kBlocks = kDepth < 64 ? 4 : 2;  // at a time on a multiprocessor
};

// Copies the tile and the halo around it into planes [chunk of 8 channels][pixel].
template <typename S>
__device__ inline void CopyRegion(const TileGrid& g, const Area& area, const typename S::T* from,
                                  int parts, bool there, uint32_t planes) {
  using T = typename S::T;
  constexpr int kRows = kThreads / (16 * S::kChunks);
  static_assert(kSide <= 16 && kRows > 0 && kSide % kRows == 0);
  const int plane = threadIdx.x % S::kChunks, x = threadIdx.x / S::kChunks % 16 - kKernel / 2;
  if (x >= kSide - kKernel / 2) return;
  there = there && area.ColumnInside(x);
  const int row = g.row_step * parts * S::kDepth;
  const int top = static_cast<int>(threadIdx.x / (16 * S::kChunks)) - kKernel / 2;
  const T* pixel = from + area.First(parts) * S::kDepth + plane * 8 + top * row +
                   x * g.column_step * parts * S::kDepth;
  planes += plane * kPlane + ((top + kKernel / 2) * kStride + x + kKernel / 2) * 16;
  // Rows of the image, counted from this thread's first.
  const unsigned first = there ? -area.y - top : 0, rows = there ? area.y + area.rows : 0;
#pragma unroll
  for (int i = 0; i < kSide / kRows; ++i) {
    const bool inside = i * kRows - first < rows;
    CopyAsync(planes + i * kRows * kStride * 16, inside ? pixel : from, inside);
    pixel += kRows * row;
  }
}

// The tables as matrices [16 slots: rows, then columns][channel], in chunks of 8 channels: first
// rounded, then what rounding took away.
template <typename S>
__device__ inline void FillTables(const TileGrid& g, const float* rows, const float* columns,
                                  typename S::T* tables) {
  using T = typename S::T;
  for (int i = threadIdx.x; i < 16 * S::kDepth; i += kThreads) {
    const int slot = i / S::kDepth, channel = i % S::kDepth;
    float x = 0.f;
    if (g.has_relative) {
      if (slot < kKernel && channel < S::kHalf) x = rows[slot * S::kHalf + channel];
      if (slot >= 8 && slot - 8 < kKernel && channel >= S::kHalf) {
        x = columns[(slot - 8) * S::kHalf + channel - S::kHalf];
      }
    }
    T* to = tables + (channel / 8 * 16 + slot) * 8 + channel % 8;
    to[0] = T(x);
    to[16 * S::kDepth] = T(x - static_cast<float>(T(x)));
  }
}

// One-hot row and column of each covered pixel: [chunk of 8 slots][pixel][8].
template <typename T>
__device__ inline void FillOneHot(T* one_hot) {
  for (int i = threadIdx.x; i < kSlots * kTermSlots / 8; i += kThreads) {
    const int pixel = i % kSlots, first = i / kSlots * 8;
    const bool covered = pixel < kCovered;
    const int row = (covered ? pixel / kReachSide : kNowhereSlot) - first;
    const int column = (covered ? kColumnSlot + pixel % kReachSide : kNowhereSlot) - first;
    const auto hot = [&](int slot) { return row == slot || column == slot ? 1.f : 0.f; };
    reinterpret_cast<uint4*>(one_hot)[i] =
        make_uint4(Pack<T>(hot(0), hot(1)), Pack<T>(hot(2), hot(3)), Pack<T>(hot(4), hot(5)),
                   Pack<T>(hot(6), hot(7)));
  }
}

// Fragments of 16 pixels' channels: [chunk][first or last 8 pixels].
template <typename S>
using Fragments = uint32_t[S::kChunks][2];

// The warp's patch: its pixels, which are the rows of a matrix.
template <typename S>
struct Patch {
  using T = typename S::T;
  bool inside[2];  // the image, of the lane's two rows
  int pixel[2];    // counted in heads of one part from the tile's first

  __device__ Patch(const TileGrid& g, const Area& area, const Lane& lane) {
    const int y = Top() + lane.row / 4, x = Left() + lane.row % 4;
    pixel[0] = y * g.row_step + x * g.column_step;
    pixel[1] = pixel[0] + 2 * g.row_step;
    inside[0] = x < area.columns && y < area.rows;
    inside[1] = x < area.columns && y + 2 < area.rows;
  }
  // In the tile.
  __device__ static int Top() { return threadIdx.x / kWarp / 2 * kPatch; }
  __device__ static int Left() { return threadIdx.x / kWarp % 2 * kPatch; }
  // Its first covered pixel in a region.
  __device__ static int Corner() { return Top() * kStride + Left(); }
  // Whether it has pixels.
  __device__ static bool Live(const Area& area) {
    return Top() < area.rows && Left() < area.columns;
  }

  // From and to the head in the tile's first pixel, at the lane's pair of channels.
  __device__ void Load(const T* from, int parts, bool there, Fragments<S>& to) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const T* at = from + pixel[half] * parts * S::kDepth;
#pragma unroll
      for (int chunk = 0; chunk < S::kChunks; ++chunk) {
        to[chunk][half] = 0;
        if (there && inside[half]) {
          to[chunk][half] = __ldg(reinterpret_cast<const uint32_t*>(at + 8 * chunk));
        }
      }
    }
  }

  __device__ void Store(const float (&from)[S::kChunks][4], float upper, float lower, T* to,
                        int parts) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!inside[half]) continue;
      const float factor = half ? lower : upper;
      T* at = to + pixel[half] * parts * S::kDepth;
#pragma unroll
      for (int chunk = 0; chunk < S::kChunks; ++chunk) {
        *reinterpret_cast<uint32_t*>(at + 8 * chunk) =
            Pack<T>(from[chunk][2 * half] * factor, from[chunk][2 * half + 1] * factor);
      }
    }
  }
};

// A covered pixel's place in the region, from the patch's corner.
__device__ inline int Region(int covered) {
  return covered / kReachSide * kStride + covered % kReachSide;
}

// Where the lane's rows of the matrices of covered pixels begin in two planes, by step.
struct Places {
  uint32_t of[kSteps];
  // `corner`: of the first covered pixel in the first plane.
  __device__ Places(const Lane& lane, uint32_t corner) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int pixel = step * 16 + lane.half * 8 + lane.matrix_row;
      of[step] = corner + (pixel < kCovered ? Region(pixel) * 16 : 0) + lane.upper * kPlane;
    }
  }
};

// Loads 16 covered pixels as rows of matrices, or (transposed) as columns. `from`: the lane's
// address in the first two planes.
template <typename S, bool kTransposed>
__device__ inline void LoadPixels(uint32_t from, Fragments<S>& to) {
#pragma unroll
  for (int c = 0; c < S::kChunks; c += 2) {
    uint32_t four[4];
    if constexpr (kTransposed) {
      LoadTransposed(from + c * kPlane, four);
    } else {
      LoadMatrices(from + c * kPlane, four);
    }
    to[c][0] = four[0];
    to[c][1] = four[1];
    to[c + 1][0] = four[2];
    to[c + 1][1] = four[3];
  }
}

// sum [2 of 8 pixels] = start + rows of `a` [16, D] times pixels.
template <typename S>
__device__ inline void Logits(const Fragments<S>& a, const Fragments<S>& b,
                              const float (&low_start)[4], const float (&high_start)[4],
                              float (&low)[4], float (&high)[4]) {
  using T = typename S::T;
#pragma unroll
  for (int c = 0; c < S::kChunks; c += 2) {
    const auto& low_before = c == 0 ? low_start : const_cast<const float (&)[4]>(low);
    const auto& high_before = c == 0 ? high_start : const_cast<const float (&)[4]>(high);
    Multiply16<T>(low, low_before, a[c][0], a[c][1], a[c + 1][0], a[c + 1][1], b[c][0],
                  b[c + 1][0]);
    Multiply16<T>(high, high_before, a[c][0], a[c][1], a[c + 1][0], a[c + 1][1], b[c][1],
                  b[c + 1][1]);
  }
}

// sum [16, D] += weights [16, 16 pixels] times the pixels' channels.
template <typename S>
__device__ inline void Gather(const uint32_t (&a)[4], const Fragments<S>& b,
                              float (&sum)[S::kChunks][4]) {
#pragma unroll
  for (int c = 0; c < S::kChunks; ++c) {
    Multiply16<typename S::T>(sum[c], a[0], a[1], a[2], a[3], b[c][0], b[c][1]);
  }
}

// q.r of 16 queries with all lines of the tables, to shared memory as [query][16 slots].
template <typename S>
__device__ inline void QueryTerms(const Fragments<S>& q, uint32_t tables, const Lane& lane,
                                  __half* terms) {
  using T = typename S::T;
  tables += (lane.upper * 16 + lane.half * 8 + lane.matrix_row) * 16;
  float u[2][4] = {};
  // The chunks of the rounded numbers, then of the remainders.
#pragma unroll
  for (int c = 0; c < 2 * S::kChunks; c += 2) {
    uint32_t b[4];
    LoadMatrices(tables + c * 16 * 16, b);
    const auto& lo = q[c % S::kChunks];
    const auto& hi = q[c % S::kChunks + 1];
    Multiply16<T>(u[0], lo[0], lo[1], hi[0], hi[1], b[0], b[2]);
    Multiply16<T>(u[1], lo[0], lo[1], hi[0], hi[1], b[1], b[3]);
  }
#pragma unroll
  for (int table = 0; table < 2; ++table) {
    __half* to = terms + lane.row * kTermStride + 8 * table + 2 * lane.pair;
    *reinterpret_cast<uint32_t*>(to) = Pack<__half>(u[table][0], u[table][1]);
    *reinterpret_cast<uint32_t*>(to + 8 * kTermStride) = Pack<__half>(u[table][2], u[table][3]);
  }
}

// A warp's terms: 16 queries' and two constants.
constexpr int kTermHalves = 16 * kTermStride + 8;
constexpr int kZeroAt = 16 * kTermStride, kNeverAt = kZeroAt + 1;

// The patch's term fragments: the terms of each query, moved to where its window lies in the reach.
struct TermFragments {
  int at[12];  // of each value in the warp's terms

  // Value i of the fragments of a 16 x 24 matrix: its row's upper half and its column.
  __device__ static int Slot(const Lane& lane, int i) { return i / 4 * 8 + 2 * lane.pair + i % 2; }
  __device__ static int Half(int i) { return i / 2 % 2; }

  __device__ TermFragments(const Lane& lane) {
#pragma unroll
    for (int i = 0; i < 12; ++i) {
      const int slot = Slot(lane, i), row = lane.row + 8 * Half(i);
      at[i] = kZeroAt;
      if (slot == kNowhereSlot) at[i] = kNeverAt;
      if (slot < kColumnSlot) {
        const int a = slot - row / 4;
        at[i] = a >= 0 && a < kKernel ? row * kTermStride + a : kNeverAt;
      } else if (slot < kNowhereSlot) {
        const int b = slot - kColumnSlot - row % 4;
        at[i] = b >= 0 && b < kKernel ? row * kTermStride + 8 + b : kNeverAt;
      }
    }
  }

  // Reads them; with border "mask", pixels beyond the image are never attended to.
  __device__ void Load(bool mask_border, const Area& area, const Lane& lane, int top, int left,
                       const __half* terms, uint32_t (&a)[6]) const {
    uint16_t value[12];
#pragma unroll
    for (int i = 0; i < 12; ++i) value[i] = reinterpret_cast<const uint16_t*>(terms)[at[i]];
    if (mask_border) {
#pragma unroll
      for (int i = 0; i < 12; ++i) {
        const int slot = Slot(lane, i);
        const int y = top + slot - kKernel / 2, x = left + slot - kColumnSlot - kKernel / 2;
        if (slot < kColumnSlot ? !area.RowInside(y)
                               : slot < kNowhereSlot && !area.ColumnInside(x)) {
          value[i] = __half_as_ushort(__float2half(kNever));
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 6; ++i) a[i] = value[2 * i] | static_cast<uint32_t>(value[2 * i + 1]) << 16;
  }
};

// Adds the terms to the logits of 16 covered pixels.
__device__ inline void AddTerms(const uint32_t (&a)[6], uint32_t one_hot, const Lane& lane,
                                int step, float (&low)[4], float (&high)[4]) {
  uint32_t b[4], c[2];
  const int pixel = step * 16 + lane.half * 8 + lane.matrix_row;
  LoadMatrices(one_hot + (lane.upper * kSlots + pixel) * 16, b);
  LoadTwoMatrices(one_hot + (2 * kSlots + pixel) * 16, c[0], c[1]);
  Multiply16<__half>(low, a[0], a[1], a[2], a[3], b[0], b[2]);
  Multiply16<__half>(high, a[0], a[1], a[2], a[3], b[1], b[3]);
  Multiply8<__half>(low, a[4], a[5], c[0]);
  Multiply8<__half>(high, a[4], a[5], c[1]);
}

__device__ inline void FillConstants(const Lane& lane, __half* terms) {
  if (lane.number == 0) {
    terms[kZeroAt] = __float2half(0.f);
    terms[kNeverAt] = __float2half(kNever);
  }
}

// Shared memory of the kernels, in bytes.
template <typename S>
struct Memory {
  static constexpr int kRegion = S::kChunks * kPlane;
  static constexpr int kTables = 2 * 16 * S::kDepth * 2;
  static constexpr int kOneHot = kSlots * kTermSlots * 2;
  static constexpr int kTerms = kWarps * kTermHalves * 2;
  static constexpr int kSums = kWarps * 16 * kTermSlots * 4;  // of the terms' gradients
  static constexpr int kWeights = kWarps * kSlots * 8;        // log-sum-exp and delta
  static constexpr int kForward = 2 * kRegion + kTables + kOneHot + kTerms;
  static constexpr int kQuery = kForward + kOneHot + kSums;
  static constexpr int kFacts = kSide * kStride * 8;
  static constexpr int kKeyTerms = kSteps * 32 * 8;
  static constexpr int kKey = 2 * kRegion + kTables + kTerms + kWeights + kFacts + kKeyTerms;
};

template <typename S>
__global__ void __launch_bounds__(kThreads, S::kBlocks)
    Forward(TileGrid g, const typename S::T* __restrict__ query,
            const typename S::T* __restrict__ key, const typename S::T* __restrict__ value,
            const float* __restrict__ rows, const float* __restrict__ columns,
            typename S::T* __restrict__ output, float* __restrict__ log_sum) {
  using T = typename S::T;
  using M = Memory<S>;
  extern __shared__ __align__(128) char memory[];
  T* tables = reinterpret_cast<T*>(memory + 2 * M::kRegion);
  __half* one_hot = reinterpret_cast<__half*>(memory + 2 * M::kRegion + M::kTables);
  const Lane lane;
  const int warp = threadIdx.x / kWarp;
  __half* terms = one_hot + M::kOneHot / 2 + warp * kTermHalves;
  const uint32_t keys = SharedAddress(memory), values = keys + M::kRegion;
  FillTables<S>(g, rows, columns, tables);
  FillOneHot<__half>(one_hot);
  FillConstants(lane, terms);
  const Places places(lane, keys + Patch<S>::Corner() * 16);
  const TermFragments fragments(lane);
  const float factor = g.scale * kLog2E;

  for (int tile = blockIdx.x; tile < g.tiles; tile += gridDim.x) {
    const Area area(g, tile, kTile, kTile, 1);
    const Patch<S> patch(g, area, lane);
    // Of the head in the tile's first pixel; of its numbers at the lane's pair of channels.
    const int64_t first = area.First(1);
    const int64_t at = first * S::kDepth + 2 * lane.pair;
    const int64_t at_part = area.First(g.parts) * S::kDepth + 2 * lane.pair;
    __syncthreads();  // All warps are done with the last tile.
    CopyRegion<S>(g, area, key, g.parts, g.has_key, keys);
    CopyRegion<S>(g, area, value, g.parts, true, values);
    Fragments<S> q;
    patch.Load(query + at_part, g.parts, true, q);
    WaitForCopies();
    __syncthreads();
    if (!patch.Live(area)) continue;  // to the barriers of the next tile
    uint32_t term[6];
    QueryTerms<S>(q, SharedAddress(tables), lane, terms);
    __syncwarp();
    fragments.Load(g.mask_border, area, lane, patch.Top(), patch.Left(), terms, term);

    float logits[2 * kSteps][4];
    Fragments<S> pixels;
    float top[2] = {kMasked, kMasked};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      auto& low = logits[2 * step];
      auto& high = logits[2 * step + 1];
      LoadPixels<S, false>(places.of[step], pixels);
      Logits<S>(q, pixels, kZeros, kZeros, low, high);
      AddTerms(term, SharedAddress(one_hot), lane, step, low, high);
#pragma unroll
      for (int i = 0; i < 4; ++i) top[i / 2] = fmaxf(top[i / 2], fmaxf(low[i], high[i]));
    }
    float total[4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) top[half] = RowMax(top[half]) * factor;
    float sum[S::kChunks][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      auto& low = logits[2 * step];
      auto& high = logits[2 * step + 1];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        low[i] = Exp2(fmaf(low[i], factor, -top[i / 2]));
        high[i] = Exp2(fmaf(high[i], factor, -top[i / 2]));
      }
      uint32_t weights[4];
      PackRows<T>(low, high, weights);
      LoadPixels<S, true>(places.of[step] + M::kRegion, pixels);
      Gather<S>(weights, pixels, sum);
      SumRows<T>(weights, total);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (lane.pair == 0 && patch.inside[half]) {
        log_sum[first + patch.pixel[half]] = kLn2 * (top[half] + log2f(total[2 * half]));
      }
    }
    patch.Store(sum, 1.f / total[0], 1.f / total[2], output + at, 1);
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads, S::kBlocks)
    QueryBackward(TileGrid g, const typename S::T* __restrict__ query,
                  const typename S::T* __restrict__ key, const typename S::T* __restrict__ value,
                  const float* __restrict__ rows, const float* __restrict__ columns,
                  const typename S::T* __restrict__ output, const float* __restrict__ log_sum,
                  const typename S::T* __restrict__ upstream,
                  typename S::T* __restrict__ query_gradient, float* __restrict__ deltas,
                  float* __restrict__ partials) {
  using T = typename S::T;
  using M = Memory<S>;
  extern __shared__ __align__(128) char memory[];
  T* tables = reinterpret_cast<T*>(memory + 2 * M::kRegion);
  __half* one_hot = reinterpret_cast<__half*>(memory + 2 * M::kRegion + M::kTables);
  T* one_hot_too = reinterpret_cast<T*>(one_hot + M::kOneHot / 2);  // of the gradients' type
  const Lane lane;
  const int warp = threadIdx.x / kWarp;
  __half* all_terms = reinterpret_cast<__half*>(one_hot_too) + M::kOneHot / 2;
  __half* terms = all_terms + warp * kTermHalves;
  float* all_sums = reinterpret_cast<float*>(all_terms + M::kTerms / 2);
  float* sums = all_sums + warp * 16 * kTermSlots;
  const uint32_t keys = SharedAddress(memory), values = keys + M::kRegion;
  FillTables<S>(g, rows, columns, tables);
  FillOneHot<__half>(one_hot);
  FillOneHot<T>(one_hot_too);
  FillConstants(lane, terms);
  const Places places(lane, keys + Patch<S>::Corner() * 16);
  const TermFragments fragments(lane);
  const float factor = g.scale * kLog2E;
  float table_sum[S::kChunks][4] = {};

  for (int tile = blockIdx.x; tile < g.tiles; tile += gridDim.x) {
    const Area area(g, tile, kTile, kTile, 1);
    const Patch<S> patch(g, area, lane);
    // Of the head in the tile's first pixel; of its numbers at the lane's pair of channels.
    const int64_t first = area.First(1);
    const int64_t at = first * S::kDepth + 2 * lane.pair;
    const int64_t at_part = area.First(g.parts) * S::kDepth + 2 * lane.pair;
    __syncthreads();  // All warps are done with the last tile.
    CopyRegion<S>(g, area, key, g.parts, g.has_key, keys);
    CopyRegion<S>(g, area, value, g.parts, true, values);
    Fragments<S> q, up, out;
    patch.Load(query + at_part, g.parts, true, q);
    patch.Load(upstream + at, 1, true, up);
    patch.Load(output + at, 1, true, out);
    float lse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      lse[half] = kAbsent;  // of a query that is not there: weights of zero
      if (patch.inside[half]) lse[half] = __ldg(log_sum + first + patch.pixel[half]);
    }
    WaitForCopies();
    __syncthreads();
    float minus_delta[2] = {0.f, 0.f};
#pragma unroll
    for (int c = 0; c < S::kChunks; ++c) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 a = Widen(out[c][half], T()), b = Widen(up[c][half], T());
        minus_delta[half] = fmaf(-a.x, b.x, fmaf(-a.y, b.y, minus_delta[half]));
      }
    }
    if (!patch.Live(area)) continue;  // to the barriers of the next tile
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      lse[half] *= kLog2E;
      minus_delta[half] = RowSum(minus_delta[half]);
      if (patch.inside[half] && lane.pair == 0) {
        deltas[first + patch.pixel[half]] = -minus_delta[half];
      }
    }
    const float slope_start[4] = {minus_delta[0], minus_delta[0], minus_delta[1], minus_delta[1]};
    uint32_t term[6];
    QueryTerms<S>(q, SharedAddress(tables), lane, terms);
    __syncwarp();
    fragments.Load(g.mask_border, area, lane, patch.Top(), patch.Left(), terms, term);

    float dq[S::kChunks][4] = {}, dterm[3][4] = {};
    Fragments<S> k, v;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      float low[4], high[4], dlow[4], dhigh[4];
      LoadPixels<S, false>(places.of[step], k);
      LoadPixels<S, false>(places.of[step] + M::kRegion, v);
      Logits<S>(q, k, kZeros, kZeros, low, high);
      AddTerms(term, SharedAddress(one_hot), lane, step, low, high);
      Logits<S>(up, v, slope_start, slope_start, dlow, dhigh);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        dlow[i] *= Exp2(fmaf(low[i], factor, -lse[i / 2]));
        dhigh[i] *= Exp2(fmaf(high[i], factor, -lse[i / 2]));
      }
      uint32_t slopes[4];
      PackRows<T>(dlow, dhigh, slopes);
      LoadPixels<S, true>(places.of[step], k);
      Gather<S>(slopes, k, dq);
      uint32_t b[4], c[2];
      const int pixel = step * 16 + lane.half * 8 + lane.matrix_row;
      LoadTransposed(SharedAddress(one_hot_too) + (lane.upper * kSlots + pixel) * 16, b);
      LoadTwoTransposed(SharedAddress(one_hot_too) + (2 * kSlots + pixel) * 16, c[0], c[1]);
      Multiply16<T>(dterm[0], slopes[0], slopes[1], slopes[2], slopes[3], b[0], b[1]);
      Multiply16<T>(dterm[1], slopes[0], slopes[1], slopes[2], slopes[3], b[2], b[3]);
      Multiply16<T>(dterm[2], slopes[0], slopes[1], slopes[2], slopes[3], c[0], c[1]);
    }
    if (g.has_relative) {
      // From slots of the reach back to places in each query's window.
#pragma unroll
      for (int n = 0; n < 3; ++n) {
        float* to = sums + lane.row * kTermSlots + 8 * n + 2 * lane.pair;
        *reinterpret_cast<float2*>(to) = make_float2(dterm[n][0], dterm[n][1]);
        *reinterpret_cast<float2*>(to + 8 * kTermSlots) = make_float2(dterm[n][2], dterm[n][3]);
      }
      __syncwarp();
      auto window = [&](int row, int slot) {  // of 16: rows of the window, then columns
        const bool column = slot >= 8;
        const int place = slot % 8;
        const int from = column ? kColumnSlot + place + row % 4 : place + row / 4;
        return place < kKernel ? sums[row * kTermSlots + from] : 0.f;
      };
      uint32_t a[4], transposed[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int upper = 8 * (i % 2), later = 8 * (i / 2), pair = 2 * lane.pair;
        a[i] = Pack<T>(window(lane.row + upper, later + pair),
                       window(lane.row + upper, later + pair + 1));
        transposed[i] = Pack<T>(window(later + pair, lane.row + upper),
                                window(later + pair + 1, lane.row + upper));
      }
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) {
        uint32_t b[2];
        LoadTwoTransposed(SharedAddress(tables) + (c * 16 + lane.half * 8 + lane.matrix_row) * 16,
                          b[0], b[1]);
        Multiply16<T>(dq[c], a[0], a[1], a[2], a[3], b[0], b[1]);
        Multiply16<T>(table_sum[c], transposed[0], transposed[1], transposed[2], transposed[3],
                      Transposed(q[c][0]), Transposed(q[c][1]));
      }
    }
    patch.Store(dq, g.scale, g.scale, query_gradient + at_part, g.parts);
  }
  if (g.has_relative) {
    StoreTableSums<kKernel, S::kDepth>(lane, table_sum, reinterpret_cast<float*>(memory), partials);
  }
}

// Where a lane finds, among a step's 16 queries' terms, those of the key patch's rows and columns:
// of two queries (its columns of the fragments), slots 0 to 3 for rows, 4 to 7 for columns.
__device__ inline void FillKeyTerms(ushort4* key_terms) {
  for (int i = threadIdx.x; i < kSteps * 32; i += kThreads) {
    uint16_t at[4];
    for (int value = 0; value < 4; ++value) {
      const int query = value / 2 * 8 + i % 32 / 4, pixel = i / 32 * 16 + query;
      const int slot = i % 4 * 2 + value % 2;
      const int reach = slot < 4 ? pixel / kReachSide : pixel % kReachSide;
      const int place = slot % 4 - reach + kKernel - 1;
      at[value] =
          place >= 0 && place < kKernel ? query * kTermStride + slot / 4 * 8 + place : kNeverAt;
    }
    key_terms[i] = make_ushort4(at[0], at[1], at[2], at[3]);
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads, S::kBlocks)
    KeyBackward(TileGrid g, const typename S::T* __restrict__ query,
                const typename S::T* __restrict__ key, const typename S::T* __restrict__ value,
                const float* __restrict__ rows, const float* __restrict__ columns,
                const float* __restrict__ log_sum, const typename S::T* __restrict__ upstream,
                const float* __restrict__ deltas, typename S::T* __restrict__ key_gradient,
                typename S::T* __restrict__ value_gradient, TableSums sums) {
  using T = typename S::T;
  using M = Memory<S>;
  extern __shared__ __align__(128) char memory[];
  T* tables = reinterpret_cast<T*>(memory + 2 * M::kRegion);
  const Lane lane;
  const int warp = threadIdx.x / kWarp;
  __half* all_terms = reinterpret_cast<__half*>(tables) + M::kTables / 2;
  __half* terms = all_terms + warp * kTermHalves;
  float2* facts = reinterpret_cast<float2*>(all_terms + M::kTerms / 2);  // by pixel of the region
  float2* own = facts + M::kFacts / 8 + warp * kSlots;                   // by covered pixel
  ushort4* key_terms = reinterpret_cast<ushort4*>(facts + (M::kFacts + M::kWeights) / 8);
  const uint32_t queries = SharedAddress(memory), upstreams = queries + M::kRegion;
  FillTables<S>(g, rows, columns, tables);
  FillConstants(lane, terms);
  FillKeyTerms(key_terms);
  const Places places(lane, queries + Patch<S>::Corner() * 16);
  // One-hot row and column of the patch's pixels: slots 0 to 3, and 4 to 7.
  uint32_t hot[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane.row + 8 * half, first = 2 * lane.pair;
    auto is_hot = [&](int slot) { return slot == row / 4 || slot == 4 + row % 4; };
    hot[half] = Pack<__half>(is_hot(first) ? 1.f : 0.f, is_hot(first + 1) ? 1.f : 0.f);
  }
  const float factor = g.scale * kLog2E;

  for (int tile = blockIdx.x; tile < g.tiles; tile += gridDim.x) {
    const Area area(g, tile, kTile, kTile, 1);
    const Patch<S> patch(g, area, lane);
    // Of the head in the tile's first pixel; of its numbers at the lane's pair of channels.
    const int64_t first = area.First(1);
    const int64_t at_part = area.First(g.parts) * S::kDepth + 2 * lane.pair;
    __syncthreads();  // All warps are done with the last tile.
    CopyRegion<S>(g, area, query, g.parts, true, queries);
    CopyRegion<S>(g, area, upstream, 1, true, upstreams);
    Fragments<S> k, v;
    patch.Load(key + at_part, g.parts, g.has_key, k);
    patch.Load(value + at_part, g.parts, true, v);
    // Facts of a column of the region, every eighth row. All loads are on their way before one is
    // needed.
    constexpr int kRows = kThreads / 16, kTurns = (kSide + kRows - 1) / kRows;
    static_assert(kSide <= 16);
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int64_t fact = first + (y - kKernel / 2) * g.row_step + (x - kKernel / 2) * g.column_step;
    const auto in_region = [&](int turn) { return x < kSide && y + turn * kRows < kSide; };
    float2 found[kTurns];
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      found[turn] = make_float2(kAbsent, 0.f);  // of a query that is not there: weights of zero
      if (in_region(turn) && area.RowInside(y + turn * kRows - kKernel / 2) &&
          area.ColumnInside(x - kKernel / 2)) {
        const int64_t at = fact + turn * kRows * g.row_step;
        found[turn] = make_float2(__ldg(log_sum + at), __ldg(deltas + at));
      }
    }
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      if (in_region(turn)) {
        facts[(y + turn * kRows) * kStride + x] =
            make_float2(found[turn].x * kLog2E, -found[turn].y);
      }
    }
    WaitForCopies();
    __syncthreads();
    if (!patch.Live(area)) continue;  // to the barriers of the next tile
    for (int pixel = lane.number; pixel < kSlots; pixel += kWarp) {
      own[pixel] =
          pixel < kCovered ? facts[patch.Corner() + Region(pixel)] : make_float2(kAbsent, 0.f);
    }
    __syncwarp();
    float dk[S::kChunks][4] = {}, dv[S::kChunks][4] = {};
    Fragments<S> q, up;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      LoadPixels<S, false>(places.of[step], q);
      LoadPixels<S, false>(places.of[step] + M::kRegion, up);
      // The terms of these queries, each for the rows and columns of the patch.
      QueryTerms<S>(q, SharedAddress(tables), lane, terms);
      __syncwarp();
      uint32_t term[2];
      const ushort4 at = key_terms[step * 32 + lane.number];
      const uint16_t* value = reinterpret_cast<const uint16_t*>(terms);
      term[0] = value[at.x] | static_cast<uint32_t>(value[at.y]) << 16;
      term[1] = value[at.z] | static_cast<uint32_t>(value[at.w]) << 16;
      float low[4], high[4], dlow[4], dhigh[4];
      const float4 a = reinterpret_cast<const float4*>(own)[step * 8 + lane.pair];
      const float4 b = reinterpret_cast<const float4*>(own)[step * 8 + 4 + lane.pair];
      Logits<S>(k, q, kZeros, kZeros, low, high);
      Multiply8<__half>(low, hot[0], hot[1], term[0]);
      Multiply8<__half>(high, hot[0], hot[1], term[1]);
      Logits<S>(v, up, {a.y, a.w, a.y, a.w}, {b.y, b.w, b.y, b.w}, dlow, dhigh);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        low[i] = Exp2(fmaf(low[i], factor, i % 2 ? -a.z : -a.x));
        high[i] = Exp2(fmaf(high[i], factor, i % 2 ? -b.z : -b.x));
        dlow[i] *= low[i];
        dhigh[i] *= high[i];
      }
      uint32_t weights[4], slopes[4];
      PackRows<T>(low, high, weights);
      PackRows<T>(dlow, dhigh, slopes);
      LoadPixels<S, true>(places.of[step] + M::kRegion, up);
      Gather<S>(weights, up, dv);
      LoadPixels<S, true>(places.of[step], q);
      Gather<S>(slopes, q, dk);
      __syncwarp();
    }
    if (g.has_key) {
      patch.Store(dk, g.scale, g.scale, key_gradient + at_part, g.parts);
    }
    patch.Store(dv, 1.f, 1.f, value_gradient + at_part, g.parts);
  }
  SumTables(sums);
}

template <typename S>
void LaunchForward(const Problem& p, const ForwardArrays& a, cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles(p, kTile, kTile, 1);
  constexpr int kBytes = Memory<S>::kForward;
  const int workers = Workers(Forward<S>, g.tiles, kThreads, kBytes, g.tiles);
  Enqueue(Forward<S>, workers, kThreads, kBytes, stream, g, static_cast<const T*>(a.query),
          static_cast<const T*>(a.key), static_cast<const T*>(a.value), a.rows, a.columns,
          static_cast<T*>(a.output), a.log_sum);
}

template <typename S>
TableSums LaunchQueryBackward(const Problem& p, const BackwardArrays& a, cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles(p, kTile, kTile, 1);
  constexpr int kBytes = Memory<S>::kQuery;
  const int workers = Workers(QueryBackward<S>, g.tiles, kThreads, kBytes, kTableWorkers);
  Enqueue(QueryBackward<S>, workers, kThreads, kBytes, stream, g, static_cast<const T*>(a.query),
          static_cast<const T*>(a.key), static_cast<const T*>(a.value), a.rows, a.columns,
          static_cast<const T*>(a.output), a.log_sum, static_cast<const T*>(a.upstream),
          static_cast<T*>(a.query_gradient), a.scratch, TablePartials(p, a));
  return SumsOf(p, a, workers, g.scale);
}

template <typename S>
void LaunchKeyBackward(const Problem& p, const BackwardArrays& a, const TableSums& sums,
                       cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles(p, kTile, kTile, 1);
  constexpr int kBytes = Memory<S>::kKey;
  const int workers = Workers(KeyBackward<S>, g.tiles, kThreads, kBytes, g.tiles);
  Enqueue(KeyBackward<S>, workers, kThreads, kBytes, stream, g, static_cast<const T*>(a.query),
          static_cast<const T*>(a.key), static_cast<const T*>(a.value), a.rows, a.columns,
          a.log_sum, static_cast<const T*>(a.upstream), a.scratch, static_cast<T*>(a.key_gradient),
          static_cast<T*>(a.value_gradient), sums);
}

// Calls `launch` with the head's type and width.
template <typename Launch>
void WithHead(const Problem& p, Launch launch) {
  auto with_type = [&](auto zero) {
    using T = decltype(zero);
    if (p.depth == 32) launch(Head<T, 32>());
    if (p.depth == 64) launch(Head<T, 64>());
  };
  if (p.type == Type::kBfloat16) {
    with_type(__nv_bfloat16());
  } else {
    with_type(__half());
  }
}

}  // namespace

bool TilesCan(const Problem& p) {
  const bool width = p.depth == 32 || p.depth == 64;
  // A smaller scale would let through what kNever is to keep out.
  return width && p.type != Type::kFloat32 && p.kernel_rows == kKernel &&
         p.kernel_columns == kKernel && p.scale >= 0.01f;
}

void TilesForward(const Problem& p, const ForwardArrays& arrays, cudaStream_t stream) {
  WithHead(p, [&](auto head) { LaunchForward<decltype(head)>(p, arrays, stream); });
}

void TilesBackward(const Problem& p, const BackwardArrays& arrays, cudaStream_t stream) {
  WithHead(p, [&](auto head) {
    const TableSums sums = LaunchQueryBackward<decltype(head)>(p, arrays, stream);
    LaunchKeyBackward<decltype(head)>(p, arrays, sums, stream);
  });
}

}  // namespace sasa
