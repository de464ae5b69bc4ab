// The CUDA kernels of attention inside of blocks.
//
// Two families. On the tensor cores, half precision, blocks of 4 x 4 pixels and heads 16 wide: a
// warp treats one block after the other, which is the 16 rows of a matrix instruction, and keeps
// what its heads' value kernels are, and backward their gradients, in registers. In ordinary
// arithmetic, all the rest: a thread is a query.
//
// Thread blocks stay and take turns on the images. Gradients are sums over all of a thread block's
// turns, in its part of the scratch memory, which a last kernel sums in a fixed order.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/ptx.cuh"
#include "cuda/element_types.cuh"
#include "cuda/kernel_launch.cuh"
#include "cuda/mma_fragment.cuh"
#include "stem_kernels.h"

namespace sasa {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarpSize;

constexpr int kSide = 4, kPlaces = kSide * kSide, kDepth = 16;  // on the tensor cores
constexpr int kStrip = kWarpSize / kSide;  // blocks in a row, of which each lane has a column of pixels

constexpr int kTogether = 16;  // in ordinary arithmetic, channels whose sums a thread keeps

// How images are cut into blocks.
struct BlockGrid {
  int height, width, heads, depth;
  int rows, columns;        // of a block
  int high, wide, blocks;   // of an image; of all
  int above, left;          // rows and columns of the first block outside of the image
  int strips_wide, strips;  // of an image; of all
  int chunks;               // of `kTogether` channels of a head
};

BlockGrid PlanBlocks(const StemProblem& p) {
  BlockGrid g = {};
  g.height = p.height;
  g.width = p.width;
  g.heads = p.heads;
  g.depth = p.head_dim;
  g.rows = p.block_rows;
  g.columns = p.block_columns;
  g.high = CeilDiv(g.height, g.rows);
  g.wide = CeilDiv(g.width, g.columns);
  g.blocks = static_cast<int>(p.batch) * g.high * g.wide;
  g.above = (g.high * g.rows - g.height) / 2;
  g.left = (g.wide * g.columns - g.width) / 2;
  g.strips_wide = CeilDiv(g.wide, kStrip);
  g.strips = static_cast<int>(p.batch) * g.high * g.strips_wide;
  g.chunks = CeilDiv(g.depth, kTogether);
  return g;
}

// Gradients as the result has them, those of the values before the similarity's, of each worker.
struct Sums {
  int values, similarity;  // how many
  __host__ __device__ int All() const { return values + similarity; }
};

Sums CountSums(const StemProblem& p) {
  return {static_cast<int>(p.block_rows * p.block_columns * p.channels * p.heads * p.head_dim),
          static_cast<int>(p.heads * p.channels * p.channels)};
}

template <typename T>
__device__ inline float ToFloat(const T* from) {
  return UnpackX2(__ldg(reinterpret_cast<const uint16_t*>(from)), T()).x;
}
__device__ inline float ToFloat(const float* from) { return __ldg(from); }

// ---- On the tensor cores ----

// A strip's pixels in shared memory, as floats: for each block, planes of its places. Place j is at
// 2 (j % 8) + j / 8, so that a lane's rows of a fragment, places r and r + 8, are one load, and its
// columns, places 2t, 2t + 8, 2t + 1 and 2t + 9, are another.
constexpr int kOnes = kMaxStemChannels;  // plane of what a product's row sums are taken with
constexpr int kPlane = 24;               // numbers; rows of four planes in different banks
constexpr int kBlockFloats = 6 * kPlane + 4;
constexpr int kStripFloats = kStrip * kBlockFloats;

__device__ inline int At(int place) { return place % 8 * 2 + place / 8; }

template <typename T_, int kChannels_>
struct Stem {
  using T = T_;
  static constexpr int kChannels = kChannels_;
};

// Plane of what logits start with: kMaskedLogit of absent places. If a channel is free, it takes its
// place and the queries have a one there, so that the product of them adds it.
template <typename S>
constexpr bool kFree = S::kChannels < kMaxStemChannels;
template <typename S>
constexpr int kBorder = kFree<S> ? kMaxStemChannels - 1 : kMaxStemChannels + 1;

// Some neighbouring blocks. Rows and columns are the image's.
struct Strip {
  int top, left;
  int blocks;
  int64_t first;  // pixel at its first place, which may lie outside of the image

  __device__ Strip(const BlockGrid& g, int number) {
    const int row = number / g.strips_wide, column = (number - row * g.strips_wide) * kStrip;
    const int image = row / g.high;
    top = (row - image * g.high) * kSide - g.above;
    left = column * kSide - g.left;
    blocks = min(kStrip, g.wide - column);
    first = (static_cast<int64_t>(image) * g.height + top) * g.width + left;
  }
};

// What a lane loads of a strip: one column of pixels.
template <typename S>
struct Column {
  uint16_t x[kSide][S::kChannels];
  bool inside[kSide];

  __device__ void Load(const BlockGrid& g, const Strip& strip, const typename S::T* pixels) {
    const int lane = threadIdx.x % kWarpSize, column = strip.left + lane;
    const auto* from =
        reinterpret_cast<const uint16_t*>(pixels) + (strip.first + lane) * S::kChannels;
#pragma unroll
    for (int row = 0; row < kSide; ++row) {
      const int y = strip.top + row;
      inside[row] = y >= 0 && y < g.height && column >= 0 && column < g.width;
#pragma unroll
      for (int c = 0; c < S::kChannels; ++c) {
        x[row][c] = inside[row] ? __ldg(from + row * g.width * S::kChannels + c) : 0;
      }
    }
  }
  __device__ void Store(float* planes) const {
    const int lane = threadIdx.x % kWarpSize;
    float* block = planes + lane / kSide * kBlockFloats;
#pragma unroll
    for (int row = 0; row < kSide; ++row) {
      float* to = block + At(row * kSide + lane % kSide);
      to[kBorder<S> * kPlane] = inside[row] ? 0.f : kMaskedLogit;
#pragma unroll
      for (int c = 0; c < S::kChannels; ++c) {
        to[c * kPlane] = UnpackX2(x[row][c], typename S::T()).x;
      }
    }
  }
};

// What no strip changes: ones, and zeros for channels that there are not.
template <typename S>
__device__ inline void FillPlanes(float* planes) {
  for (int i = threadIdx.x % kWarpSize; i < kStripFloats; i += kWarpSize) {
    planes[i] = i % kBlockFloats / kPlane == kOnes ? 1.f : 0.f;
  }
}

// Two numbers of T each, in a word.
template <typename T>
__device__ inline uint32_t MultiplyTwo(uint32_t a, uint32_t b) {
  using Two = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
  const Two product = __hmul2(*reinterpret_cast<Two*>(&a), *reinterpret_cast<Two*>(&b));
  return *reinterpret_cast<const uint32_t*>(&product);
}
template <typename T>
__device__ inline uint32_t MultiplyAddTwo(uint32_t a, uint32_t b, uint32_t c) {
  using Two = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
  const Two sum = __hfma2(*reinterpret_cast<Two*>(&a), *reinterpret_cast<Two*>(&b),
                          *reinterpret_cast<Two*>(&c));
  return *reinterpret_cast<const uint32_t*>(&sum);
}

// The similarity of two heads as the right side of a product with pixels [16, 4 channels], twice:
// column 2 e + h is the key's channel e of head h; its rows are the query's channels, rounded, then
// what rounding took away.
struct Similarity {
  float coarse, rest;

  template <int kChannels>
  __device__ static Similarity Load(const float* similarity, int head, int heads,
                                    const MmaLane& lane) {
    const int of = head + lane.row % 2, e = lane.row / 2, c = lane.pair;
    float x = 0.f;
    if (of < heads && c < kChannels && e < kChannels) {
      x = __ldg(similarity + (of * kChannels + c) * kChannels + e) * kLog2E;
    }
    return {TruncateToTf32(x), x - TruncateToTf32(x)};
  }
};

// A block's pixels as fragments.
template <typename S>
struct Rows {
  float x[2];                       // the lane's rows; the channel is its pair
  float low[4] = {}, high[4] = {};  // starts of logits, of the first and the last 8 keys

  __device__ Rows(const float* block, const MmaLane& lane) {
    const float2 two = *reinterpret_cast<const float2*>(block + lane.pair * kPlane + 2 * lane.row);
    x[0] = two.x;
    x[1] = two.y;
    if constexpr (!kFree<S>) {
      const float4 border =
          *reinterpret_cast<const float4*>(block + kBorder<S> * kPlane + 4 * lane.pair);
      low[0] = low[2] = border.x;
      high[0] = high[2] = border.y;
      low[1] = low[3] = border.z;
      high[1] = high[3] = border.w;
    }
  }
};

// The queries of two heads times their similarity: [head][upper or lower row], at the key's channel
// that is the lane's pair.
template <typename S>
__device__ inline void Queries(const Rows<S>& rows, const Similarity& similarity, float one,
                               float (&y)[2][2]) {
  float product[4];
  MmaM16N8K8Tf32(product, {one, one, one, one}, rows.x[0], rows.x[1], rows.x[0], rows.x[1],
               similarity.coarse, similarity.rest);
  y[0][0] = product[0];
  y[1][0] = product[1];
  y[0][1] = product[2];
  y[1][1] = product[3];
}

// Weights of a head, not yet divided by their sum. Logits lose little more than float32 does, as
// pixels are exact in tf32, and queries are in two parts.
template <typename S>
__device__ inline void Weights(const Rows<S>& rows, const float (&y)[2], float (&low)[4],
                               float (&high)[4]) {
  const float upper = TruncateToTf32(y[0]), lower = TruncateToTf32(y[1]);
  const float upper_rest = y[0] - upper, lower_rest = y[1] - lower;
  MmaM16N8K8Tf32(low, rows.low, upper, lower, upper_rest, lower_rest, rows.x[0], rows.x[0]);
  MmaM16N8K8Tf32(high, rows.high, upper, lower, upper_rest, lower_rest, rows.x[1], rows.x[1]);
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const float most = QuadMax(fmaxf(fmaxf(low[i], low[i + 1]), fmaxf(high[i], high[i + 1])));
#pragma unroll
    for (int j = i; j < i + 2; ++j) {
      low[j] = Exp2Approx(low[j] - most);
      high[j] = Exp2Approx(high[j] - most);
    }
  }
}

// Heads that a warp treats: forward a pixel's 128 bytes, backward what registers hold.
constexpr int kForwardHeads = 4, kBackwardHeads = 2;

template <typename S>
__global__ void __launch_bounds__(kThreads, kFree<S> ? 4 : 3)
    TileForward(BlockGrid g, int groups, const typename S::T* __restrict__ pixels,
                const float* __restrict__ similarity, const float* __restrict__ values,
                typename S::T* __restrict__ output) {
  using T = typename S::T;
  constexpr int kChannels = S::kChannels;
  extern __shared__ __align__(128) char memory[];
  const MmaLane lane;
  const int warp = threadIdx.x / kWarpSize;
  float* planes = reinterpret_cast<float*>(memory) + warp * kStripFloats;
  const int first_head = blockIdx.x % groups * kForwardHeads;
  const int step = gridDim.x / groups * kWarps;

  Similarity tables[kForwardHeads / 2];
#pragma unroll
  for (int i = 0; i < kForwardHeads / 2; ++i) {
    tables[i] = Similarity::Load<kChannels>(similarity, first_head + 2 * i, g.heads, lane);
  }
  // Right sides [16 places, 16 channels] of a head's products, for each channel of the pixels. The
  // columns are in such an order that a lane gets four neighbouring channels of the output.
  uint32_t value[kForwardHeads][kChannels][2][2];
#pragma unroll
  for (int h = 0; h < kForwardHeads; ++h) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int head = first_head + h, place = 2 * lane.pair + 8 * half;
          const int channel = lane.row / 2 * 4 + tile * 2 + lane.row % 2;
          const float* from =
              values + ((place * kChannels + c) * g.heads + head) * kDepth + channel;
          value[h][c][tile][half] = 0;
          if (head < g.heads) {
            value[h][c][tile][half] =
                PackX2<T>(__ldg(from), __ldg(from + kChannels * g.heads * kDepth));
          }
        }
      }
    }
  }

  const int filters = g.heads * kDepth;
  const float one = kFree<S> && lane.pair == kMaxStemChannels - 1 ? 1.f : 0.f;
  FillPlanes<S>(planes);
  Column<S> next;
  int number = blockIdx.x / groups * kWarps + warp;
  if (number < g.strips) next.Load(g, Strip(g, number), pixels);
  for (; number < g.strips; number += step) {
    const Strip strip(g, number);
    __syncwarp();
    next.Store(planes);
    __syncwarp();
    if (number + step < g.strips) next.Load(g, Strip(g, number + step), pixels);
    const int row = lane.row / kSide, column = lane.row % kSide;
    T* to = output + (strip.first + row * g.width + column) * filters + first_head * kDepth +
            4 * lane.pair;
    const int lower = 2 * g.width * filters;
    const int y = strip.top + row;
    for (int b = 0; b < strip.blocks; ++b, to += kSide * filters) {
      const float* block = planes + b * kBlockFloats;
      const int x = strip.left + b * kSide + column;
      const bool column_inside = x >= 0 && x < g.width;
      const bool inside[2] = {column_inside && y >= 0 && y < g.height,
                              column_inside && y + 2 >= 0 && y + 2 < g.height};
      const Rows<S> rows(block, lane);
      uint32_t columns[kChannels][2];  // pairs of keys
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const float4 four = *reinterpret_cast<const float4*>(block + c * kPlane + 4 * lane.pair);
        columns[c][0] = PackX2<T>(four.x, four.z);
        columns[c][1] = PackX2<T>(four.y, four.w);
      }
#pragma unroll
      for (int pair = 0; pair < kForwardHeads / 2; ++pair) {
        if (first_head + 2 * pair >= g.heads) break;
        float q[2][2];
        Queries(rows, tables[pair], one, q);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int h = 2 * pair + i;
          float low[4], high[4];
          Weights(rows, q[i], low, high);
          uint32_t weights[4];
          PackAFragment<T>(low, high, weights);
          float sum[4] = {}, out[2][4] = {};
          MmaRowSum<T>(weights, sum);
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
            uint32_t weighted[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) weighted[j] = MultiplyTwo<T>(weights[j], columns[c][j / 2]);
#pragma unroll
            for (int tile = 0; tile < 2; ++tile) {
              MmaM16N8K16<T>(out[tile], weighted[0], weighted[1], weighted[2], weighted[3],
                            value[h][c][tile][0], value[h][c][tile][1]);
            }
          }
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float factor = RcpApprox(sum[2 * half]);
            uint2 four;
            four.x = PackX2<T>(out[0][2 * half] * factor, out[0][2 * half + 1] * factor);
            four.y = PackX2<T>(out[1][2 * half] * factor, out[1][2 * half + 1] * factor);
            if (inside[half] && first_head + h < g.heads) {
              *reinterpret_cast<uint2*>(to + half * lower + h * kDepth) = four;
            }
          }
        }
      }
    }
  }
}

// Upstream gradients on their way into shared memory: of each block [16 pixels][32 channels], in
// chunks of 8 channels that are swapped so that matrices of 8 pixels lie in different banks.
constexpr int kStages = 4;
constexpr int kStageBytes = kPlaces * kBackwardHeads * kDepth * 2;

// A lane copies 8 channels of two pixels of each of the warp's blocks.
template <typename S>
struct Copies {
  using T = typename S::T;
  const T *upstream, *from;  // from the block's upper pixel
  int chunk, pixel;
  int strip, blocks;  // that are left in the strip
  int x;
  bool head_there, inside[2];  // rows of the image

  __device__ Copies(const BlockGrid& g, const T* all, int first_head, int first_strip) {
    chunk = threadIdx.x % kWarpSize % 4;
    pixel = threadIdx.x % kWarpSize / 4;
    head_there = first_head + chunk / 2 < g.heads;
    upstream = all + first_head * kDepth;
    Begin(g, first_strip);
  }
  __device__ void Begin(const BlockGrid& g, int number) {
    strip = number;
    if (strip >= g.strips) return;
    const Strip now(g, strip);
    const int row = pixel / kSide, column = pixel % kSide, y = now.top + row;
    blocks = now.blocks;
    x = now.left + column;
    inside[0] = head_there && y >= 0 && y < g.height;
    inside[1] = head_there && y + 2 >= 0 && y + 2 < g.height;
    from = upstream + (now.first + row * g.width + column) * g.heads * kDepth + chunk * 8;
  }
  // Copies of the next block, if there is one, are a group.
  __device__ void Next(const BlockGrid& g, int step, uint32_t stage) {
    if (strip < g.strips) {
      const bool column_inside = x >= 0 && x < g.width;
      const int filters = g.heads * kDepth;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool there = column_inside && inside[half];
        const uint32_t to = stage + (pixel + 8 * half) * 64 + (chunk ^ (pixel / 2)) * 16;
        CpAsync16(to, there ? from + half * 2 * g.width * filters : upstream, there);
      }
      from += kSide * filters;
      x += kSide;
      if (--blocks == 0) Begin(g, strip + step);
    }
    CpAsyncCommitGroup();
  }
};

// Shared memory of a warp, in bytes.
constexpr int kBackwardBytes = kStripFloats * 4 + kStages * kStageBytes;

template <typename S>
__global__ void __launch_bounds__(kThreads, kFree<S> ? 3 : 2)
    TileBackward(BlockGrid g, int groups, const typename S::T* __restrict__ pixels,
                 const float* __restrict__ similarity, const float* __restrict__ values,
                 const typename S::T* __restrict__ upstream, Sums sums,
                 float* __restrict__ partials) {
  using T = typename S::T;
  constexpr int kChannels = S::kChannels;
  extern __shared__ __align__(128) char memory[];
  const MmaLane lane;
  const int warp = threadIdx.x / kWarpSize;
  float* planes = reinterpret_cast<float*>(memory + warp * kBackwardBytes);
  const uint32_t stages = SmemAddress(planes + kStripFloats);
  const int first_head = blockIdx.x % groups * kBackwardHeads;
  const int step = gridDim.x / groups * kWarps;

  const Similarity table = Similarity::Load<kChannels>(similarity, first_head, g.heads, lane);
  // The value kernels [16 places, 16 channels] as the right side's transpose.
  uint32_t value[kBackwardHeads][kChannels][2][2];
#pragma unroll
  for (int h = 0; h < kBackwardHeads; ++h) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int head = first_head + h, place = lane.row + 8 * tile;
          const float* from = values + ((place * kChannels + c) * g.heads + head) * kDepth +
                              2 * lane.pair + 8 * half;
          value[h][c][tile][half] = 0;
          if (head < g.heads) value[h][c][tile][half] = PackX2<T>(__ldg(from), __ldg(from + 1));
        }
      }
    }
  }
  // Sums over all blocks: for each channel of the pixels [16 places, 16 channels]; and, of the
  // lane's queries, [the query's channel][the key's channel, which is the lane's pair].
  float value_sum[kBackwardHeads][kChannels][2][4] = {};
  float similarity_sum[kBackwardHeads][kChannels] = {};

  const int matrix_row = lane.ldmatrix_row + 8 * lane.matrix_lo;
  const uint32_t matrix = matrix_row * 64 + (lane.matrix_hi ^ (matrix_row / 2 % 4)) * 16;
  const float one = kFree<S> && lane.pair == kMaxStemChannels - 1 ? 1.f : 0.f;
  FillPlanes<S>(planes);
  Column<S> next;
  int number = blockIdx.x / groups * kWarps + warp;
  uint32_t stage = 0;
  Copies<S> copies(g, upstream, first_head, number);
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) copies.Next(g, step, stages + i * kStageBytes);
  if (number < g.strips) next.Load(g, Strip(g, number), pixels);
  for (; number < g.strips; number += step) {
    const int blocks = Strip(g, number).blocks;
    __syncwarp();
    next.Store(planes);
    if (number + step < g.strips) next.Load(g, Strip(g, number + step), pixels);
    for (int b = 0; b < blocks; ++b) {
      CpAsyncWaitGroup<kStages - 2>();
      __syncwarp();
      copies.Next(g, step, stages + (stage + kStages - 1) % kStages * kStageBytes);
      const uint32_t own = stages + stage * kStageBytes;
      stage = (stage + 1) % kStages;
      const float* block = planes + b * kBlockFloats;
      const Rows<S> rows(block, lane);
      float x[2][kChannels];  // of the lane's rows
      uint32_t twice[2][kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const float2 two = *reinterpret_cast<const float2*>(block + c * kPlane + 2 * lane.row);
        x[0][c] = two.x;
        x[1][c] = two.y;
        twice[0][c] = PackX2<T>(two.x, two.x);
        twice[1][c] = PackX2<T>(two.y, two.y);
      }
      // The pixels as the right side of products over the keys, with ones: column 2 c is channel c,
      // all others are ones.
      const float4 ones = *reinterpret_cast<const float4*>(
          block + (lane.row % 2 ? kOnes : lane.row / 2) * kPlane + 4 * lane.pair);
      const auto over_keys = [&](const float (&low)[4], const float (&high)[4], float (&sum)[4]) {
        MmaM16N8K8Tf32(sum, kZeros, low[0], low[2], low[1], low[3], ones.x, ones.z);
        MmaM16N8K8Tf32(sum, sum, high[0], high[2], high[1], high[3], ones.y, ones.w);
      };
      float y[2][2];
      Queries(rows, table, one, y);
#pragma unroll
      for (int h = 0; h < kBackwardHeads; ++h) {
        float low[4], high[4], mean[4];
        Weights(rows, y[h], low, high);
        over_keys(low, high, mean);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float factor = RcpApprox(mean[2 * half + 1]);
          mean[2 * half] *= factor;  // of the pixels, by these weights
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            low[i] *= factor;
            high[i] *= factor;
          }
        }
        uint32_t weights[4], up[4], up_columns[4];
        PackAFragment<T>(low, high, weights);
        LdmatrixX4(own + (matrix ^ h * 32), up);
        LdmatrixX4Trans(own + (matrix ^ h * 32), up_columns);

        // Weighted pixels, as columns of queries, times upstream.
        const uint32_t transposed[4] = {Movmatrix(weights[0]), Movmatrix(weights[2]),
                                        Movmatrix(weights[1]), Movmatrix(weights[3])};
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          uint32_t weighted[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) weighted[j] = MultiplyTwo<T>(transposed[j], twice[j % 2][c]);
#pragma unroll
          for (int tile = 0; tile < 2; ++tile) {
            MmaM16N8K16<T>(value_sum[h][c][tile], weighted[0], weighted[1], weighted[2], weighted[3],
                          up_columns[2 * tile], up_columns[2 * tile + 1]);
          }
        }

        // Gradients of the weights: upstream times the values of the keys.
        float slopes[2][4];
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
          uint32_t v[2];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            v[half] = MultiplyTwo<T>(value[h][0][tile][half], twice[tile][0]);
#pragma unroll
            for (int c = 1; c < kChannels; ++c) {
              v[half] = MultiplyAddTwo<T>(value[h][c][tile][half], twice[tile][c], v[half]);
            }
          }
          MmaM16N8K16<T>(slopes[tile], kZeros, up[0], up[1], up[2], up[3], v[0], v[1]);
        }
        float sum[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          slopes[0][i] *= low[i];
          slopes[1][i] *= high[i];
        }
        over_keys(slopes[0], slopes[1], sum);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          // Gradients of the logits times pixels: their sum is that of the slopes, less its share.
          const float gradient = fmaf(-sum[2 * half + 1], mean[2 * half], sum[2 * half]);
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
            similarity_sum[h][c] = fmaf(x[half][c], gradient, similarity_sum[h][c]);
          }
        }
      }
    }
  }

  // The warps' sums, one after the other.
  __syncthreads();
  float* total = reinterpret_cast<float*>(memory);
  constexpr int kOf = kPlaces * kChannels * kDepth;  // a head's
  for (int turn = 0; turn < kWarps; ++turn) {
    if (warp == turn) {
#pragma unroll
      for (int h = 0; h < kBackwardHeads; ++h) {
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            const int place = lane.row + i % 4 / 2 * 8, channel = i / 4 * 8 + 2 * lane.pair + i % 2;
            float* to = total + h * kOf + (place * kChannels + c) * kDepth + channel;
            *to = (turn ? *to : 0.f) + value_sum[h][c][i / 4][i % 4];
          }
          const float sum = WarpReduceSum<4>(similarity_sum[h][c]);
          if (lane.row == 0 && lane.pair < kChannels) {
            float* to = total + kBackwardHeads * kOf + (h * kChannels + c) * kChannels + lane.pair;
            *to = (turn ? *to : 0.f) + sum;
          }
        }
      }
    }
    __syncthreads();
  }
  float* to = partials + static_cast<int64_t>(blockIdx.x / groups) * sums.All();
  for (int i = threadIdx.x; i < kBackwardHeads * kOf; i += kThreads) {
    const int h = i / kOf, product = i % kOf / kDepth, channel = i % kDepth;
    if (first_head + h < g.heads) {
      to[(product * g.heads + first_head + h) * kDepth + channel] = total[i];
    }
  }
  constexpr int kSquare = kChannels * kChannels;
  for (int i = threadIdx.x; i < kBackwardHeads * kSquare; i += kThreads) {
    if (first_head + i / kSquare < g.heads) {
      to[sums.values + first_head * kSquare + i] = total[kBackwardHeads * kOf + i];
    }
  }
}

// ---- In ordinary arithmetic ----

constexpr int kRowStride = kTogether + 4;    // of upstream rows in shared memory
constexpr int kWeightStride = kThreads + 1;  // of weights, by key, in shared memory

// Shared memory of the kernels, in floats.
struct Layout {
  int places, at_a_time, turns;  // blocks at a time, of so many places
  int pixels, border, slice, weights, slopes, rows, forward, backward;

  Layout(const BlockGrid& g, int channels) {
    places = g.rows * g.columns;
    at_a_time = kThreads / places;
    turns = CeilDiv(g.blocks, at_a_time);
    slice = 0;
    pixels = slice + places * channels * kTogether;
    border = pixels + kThreads * channels;
    rows = forward = border + kThreads;
    weights = rows + kThreads * kRowStride;
    slopes = weights + places * kWeightStride;
    backward = slopes + places * kWeightStride;
  }
};

// The query of a thread, in the thread block's turn.
struct Query {
  int block, place;  // of those at a time
  bool inside;       // of the image
  int64_t pixel;

  __device__ Query(const BlockGrid& g, const Layout& layout, int turn) {
    block = threadIdx.x / layout.places;
    place = threadIdx.x - block * layout.places;
    const int number = turn * layout.at_a_time + block;
    const int row = number / g.wide, image = row / g.high;
    const int y = (row - image * g.high) * g.rows - g.above + place / g.columns;
    const int x = (number - row * g.wide) * g.columns - g.left + place % g.columns;
    inside = block < layout.at_a_time && number < g.blocks && y >= 0 && y < g.height && x >= 0 &&
             x < g.width;
    pixel = (static_cast<int64_t>(image) * g.height + y) * g.width + x;
  }
};

// 16 channels of a pixel's head, or as many as there are; `wide` where they lie as whole vectors.
template <typename T>
__device__ inline void LoadTogether(const T* from, int count, float (&to)[kTogether]) {
#pragma unroll
  for (int d = 0; d < kTogether; ++d) to[d] = d < count ? ToFloat(from + d) : 0.f;
}
template <typename T>
__device__ inline void StoreTogether(const float (&from)[kTogether], int count, bool wide, T* to) {
  constexpr int kVector = 16 / sizeof(T);
  struct alignas(16) Vector {
    T numbers[kVector];
  };
#pragma unroll
  for (int d = 0; d < kTogether; d += kVector) {
    Vector vector;
#pragma unroll
    for (int i = 0; i < kVector; ++i) vector.numbers[i] = T(from[d + i]);
    if (wide && d < count) {
      *reinterpret_cast<Vector*>(to + d) = vector;
    } else {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        if (d + i < count) to[d + i] = vector.numbers[i];
      }
    }
  }
}

template <typename S>
struct Plain {
  using T = typename S::T;
  static constexpr int kChannels = S::kChannels;
  const BlockGrid& g;
  const Layout& layout;
  float* memory;
  int head;

  // The value kernels of 16 channels of the head: [place][channel of the pixels][16].
  __device__ void FillSlice(const float* values, int chunk) const {
    for (int i = threadIdx.x; i < layout.places * kChannels * kTogether; i += kThreads) {
      const int channel = chunk * kTogether + i % kTogether;
      float x = 0.f;
      if (channel < g.depth) {
        x = __ldg(values + (static_cast<int64_t>(i / kTogether) * g.heads + head) * g.depth +
                  channel);
      }
      memory[layout.slice + i] = x;
    }
  }
  __device__ const float* Slice(int place, int c) const {
    return memory + layout.slice + (place * kChannels + c) * kTogether;
  }
  // Of a block's place.
  __device__ const float* Pixel(int block, int place) const {
    return memory + layout.pixels + (block * layout.places + place) * kChannels;
  }
  __device__ float Border(int block, int place) const {
    return memory[layout.border + block * layout.places + place];
  }

  // Shares the queries' pixels as keys.
  __device__ void FillPixels(const Query& query, const T* pixels, float (&x)[kChannels]) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      x[c] = query.inside ? ToFloat(pixels + query.pixel * kChannels + c) : 0.f;
      memory[layout.pixels + threadIdx.x * kChannels + c] = x[c];
    }
    memory[layout.border + threadIdx.x] = query.inside ? 0.f : kMaskedLogit;
  }

  __device__ void Multiply(const float (&x)[kChannels], const float* similarity,
                           float (&y)[kChannels]) const {
#pragma unroll
    for (int e = 0; e < kChannels; ++e) {
      y[e] = 0.f;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        y[e] += x[c] * __ldg(similarity + (head * kChannels + c) * kChannels + e);
      }
      y[e] *= kLog2E;
    }
  }
  __device__ float Logit(const float (&y)[kChannels], int block, int place) const {
    float logit = Border(block, place);
#pragma unroll
    for (int e = 0; e < kChannels; ++e) logit += y[e] * Pixel(block, place)[e];
    return logit;
  }
  __device__ float Most(const float (&y)[kChannels], int block) const {
    float most = kMaskedLogit;
    for (int q = 0; q < layout.places; ++q) most = fmaxf(most, Logit(y, block, q));
    return most;
  }
};

template <typename S>
__global__ void __launch_bounds__(kThreads)
    PlainForward(BlockGrid g, Layout layout, const typename S::T* __restrict__ pixels,
                 const float* __restrict__ similarity, const float* __restrict__ values,
                 typename S::T* __restrict__ output) {
  using T = typename S::T;
  extern __shared__ __align__(128) char memory[];
  const int groups = g.heads * g.chunks, chunk = blockIdx.x % g.chunks;
  const Plain<S> plain{g, layout, reinterpret_cast<float*>(memory),
                       static_cast<int>(blockIdx.x) / g.chunks % g.heads};
  plain.FillSlice(values, chunk);
  const int step = gridDim.x / groups;
  for (int turn = blockIdx.x / groups; turn < layout.turns; turn += step) {
    const Query query(g, layout, turn);
    float x[S::kChannels], y[S::kChannels];
    __syncthreads();
    plain.FillPixels(query, pixels, x);
    __syncthreads();
    if (!query.inside) continue;
    plain.Multiply(x, similarity, y);
    const float most = plain.Most(y, query.block);
    float sum = 0.f, out[kTogether] = {};
    for (int q = 0; q < layout.places; ++q) {
      const float weight = Exp2Approx(plain.Logit(y, query.block, q) - most);
      sum += weight;
#pragma unroll
      for (int c = 0; c < S::kChannels; ++c) {
        const float weighted = weight * plain.Pixel(query.block, q)[c];
        const float* value = plain.Slice(q, c);
#pragma unroll
        for (int d = 0; d < kTogether; ++d) out[d] += weighted * value[d];
      }
    }
    const float factor = 1.f / sum;
#pragma unroll
    for (int d = 0; d < kTogether; ++d) out[d] *= factor;
    T* to = output + (query.pixel * g.heads + plain.head) * g.depth + chunk * kTogether;
    StoreTogether(out, g.depth - chunk * kTogether, g.depth % 8 == 0, to);
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads)
    PlainBackward(BlockGrid g, Layout layout, const typename S::T* __restrict__ pixels,
                  const float* __restrict__ similarity, const float* __restrict__ values,
                  const typename S::T* __restrict__ upstream, Sums sums,
                  float* __restrict__ partials) {
  constexpr int kChannels = S::kChannels;
  extern __shared__ __align__(128) char memory[];
  const Plain<S> plain{g, layout, reinterpret_cast<float*>(memory),
                       static_cast<int>(blockIdx.x) % g.heads};
  // By key, then by thread.
  float* weights = plain.memory + layout.weights;
  float* slopes = plain.memory + layout.slopes;
  float* rows = plain.memory + layout.rows;
  const int first_turn = blockIdx.x / g.heads, step = gridDim.x / g.heads;
  float* partial = partials + static_cast<int64_t>(first_turn) * sums.All();
  float similarity_sum[kChannels][kChannels] = {};
  for (int turn = first_turn; turn < layout.turns; turn += step) {
    const Query query(g, layout, turn);
    float x[kChannels], y[kChannels];
    __syncthreads();
    plain.FillPixels(query, pixels, x);
    __syncthreads();
    float* own_weights = weights + threadIdx.x;
    float* own_slopes = slopes + threadIdx.x;
    const int keys = query.inside ? layout.places : 0;
    if (query.inside) {
      plain.Multiply(x, similarity, y);
      const float most = plain.Most(y, query.block);
      float sum = 0.f;
      for (int q = 0; q < keys; ++q) {
        const float weight = Exp2Approx(plain.Logit(y, query.block, q) - most);
        own_weights[q * kWeightStride] = weight;
        own_slopes[q * kWeightStride] = 0.f;
        sum += weight;
      }
      const float factor = 1.f / sum;
      for (int q = 0; q < keys; ++q) own_weights[q * kWeightStride] *= factor;
    } else {
      for (int q = 0; q < layout.places; ++q) own_weights[q * kWeightStride] = 0.f;
    }
    for (int chunk = 0; chunk < g.chunks; ++chunk) {
      const int first = chunk * kTogether;
      float up[kTogether];
      LoadTogether(upstream + (query.pixel * g.heads + plain.head) * g.depth + first,
                   query.inside ? g.depth - first : 0, up);
      __syncthreads();
      plain.FillSlice(values, chunk);
#pragma unroll
      for (int d = 0; d < kTogether; ++d) rows[threadIdx.x * kRowStride + d] = up[d];
      __syncthreads();
      for (int q = 0; q < keys; ++q) {
        float slope = 0.f;
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          const float* value = plain.Slice(q, c);
          float product = 0.f;
#pragma unroll
          for (int d = 0; d < kTogether; ++d) product += value[d] * up[d];
          slope += product * plain.Pixel(query.block, q)[c];
        }
        own_slopes[q * kWeightStride] += slope;
      }
      // Four channels of a key's value kernels, over all queries at a time.
      for (int i = threadIdx.x; i < layout.places * kTogether / 4; i += kThreads) {
        const int q = i / (kTogether / 4), channel = i % (kTogether / 4) * 4;
        float total[kChannels][4] = {};
        for (int block = 0; block < layout.at_a_time; ++block) {
          const int thread = block * layout.places;
          float products[4] = {};
          for (int p = thread; p < thread + layout.places; ++p) {
            const float weight = weights[q * kWeightStride + p];
            const float4 row = *reinterpret_cast<const float4*>(rows + p * kRowStride + channel);
            products[0] += weight * row.x;
            products[1] += weight * row.y;
            products[2] += weight * row.z;
            products[3] += weight * row.w;
          }
#pragma unroll
          for (int c = 0; c < kChannels; ++c) {
#pragma unroll
            for (int d = 0; d < 4; ++d) total[c][d] += plain.Pixel(block, q)[c] * products[d];
          }
        }
#pragma unroll
        for (int c = 0; c < kChannels; ++c) {
          float* to = partial + ((q * kChannels + c) * g.heads + plain.head) * g.depth + first;
#pragma unroll
          for (int d = channel; d < channel + 4; ++d) {
            if (first + d < g.depth) {
              to[d] = (turn == first_turn ? 0.f : to[d]) + total[c][d - channel];
            }
          }
        }
      }
    }
    float delta = 0.f, sum[kChannels] = {};
    for (int q = 0; q < keys; ++q) {
      delta += own_weights[q * kWeightStride] * own_slopes[q * kWeightStride];
    }
    for (int q = 0; q < keys; ++q) {
      const float slope = own_weights[q * kWeightStride] * (own_slopes[q * kWeightStride] - delta);
#pragma unroll
      for (int e = 0; e < kChannels; ++e) sum[e] += slope * plain.Pixel(query.block, q)[e];
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
#pragma unroll
      for (int e = 0; e < kChannels; ++e) similarity_sum[c][e] += x[c] * sum[e];
    }
  }
  // The threads' sums, each number in an order that does not depend on scheduling.
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kChannels * kChannels; ++i) {
    const float sum = WarpReduceSum<1>(similarity_sum[i / kChannels][i % kChannels]);
    if (threadIdx.x % kWarpSize == 0) plain.memory[i * kWarps + threadIdx.x / kWarpSize] = sum;
  }
  __syncthreads();
  if (threadIdx.x < kChannels * kChannels) {
    float sum = 0.f;
    for (int warp = 0; warp < kWarps; ++warp) sum += plain.memory[threadIdx.x * kWarps + warp];
    partial[sums.values + plain.head * kChannels * kChannels + threadIdx.x] = sum;
  }
}

// ---- Both ----

constexpr int kSumThreads = 256;

// Each lane has a number, each warp some of the workers.
__global__ void __launch_bounds__(kSumThreads)
    SumWorkers(const float* __restrict__ partials, int workers, Sums sums,
               float* __restrict__ values_gradient, float* __restrict__ similarity_gradient) {
  __shared__ float parts[kSumThreads];
  const int number = blockIdx.x * kWarpSize + threadIdx.x % kWarpSize;
  float sum = 0.f;
  if (number < sums.All()) {
#pragma unroll 4
    for (int worker = threadIdx.x / kWarpSize; worker < workers; worker += kSumThreads / kWarpSize) {
      sum += partials[static_cast<int64_t>(worker) * sums.All() + number];
    }
  }
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x >= kWarpSize || number >= sums.All()) return;
  for (int i = threadIdx.x + kWarpSize; i < kSumThreads; i += kWarpSize) sum += parts[i];
  if (number < sums.values) {
    values_gradient[number] = sum;
  } else {
    similarity_gradient[number - sums.values] = sum;
  }
}

bool OnTensorCores(const StemProblem& p) {
  return p.type != DType::kFloat32 && p.block_rows == kSide && p.block_columns == kSide &&
         p.head_dim == kDepth;
}

// Calls `launch` with the type and the number of channels.
template <typename T, typename Launch>
void WithChannels(const StemProblem& p, Launch launch) {
  if (p.channels == 1) launch(Stem<T, 1>());
  if (p.channels == 2) launch(Stem<T, 2>());
  if (p.channels == 3) launch(Stem<T, 3>());
  if (p.channels == 4) launch(Stem<T, 4>());
}

template <typename OfTiles, typename OfPlain>
void WithStem(const StemProblem& p, OfTiles tiles, OfPlain plain) {
  const auto with_type = [&](auto zero) {
    using T = decltype(zero);
    OnTensorCores(p) ? WithChannels<T>(p, tiles) : WithChannels<T>(p, plain);
  };
  if (p.type == DType::kFloat32) {
    WithChannels<float>(p, plain);
  } else if (p.type == DType::kBfloat16) {
    with_type(__nv_bfloat16());
  } else {
    with_type(__half());
  }
}

// A worker is `groups` thread blocks, each for some of the heads or channels.
template <typename Kernel>
int PixelWorkers(Kernel kernel, int work, int groups, int bytes, int limit) {
  const int thread_blocks = PersistentGridSize(kernel, INT32_MAX, kThreads, bytes, INT32_MAX);
  return std::max(1, std::min({thread_blocks / groups, work, limit}));
}

// Blocks are counted with 32 bits, and so are the numbers of an image.
const char* Refusal(const StemProblem& p) {
  constexpr int64_t kLimit = int64_t{1} << 31, kMostPlaces = 64, kMostDepth = 128;
  if (p.channels < 1 || p.channels > kMaxStemChannels) return "pixels of more than 4 channels";
  if (p.block_rows * p.block_columns > kMostPlaces) return "blocks of more than 64 pixels";
  if (p.head_dim > kMostDepth) return "heads more than 128 wide";
  if (p.height * p.width * p.heads * p.head_dim >= kLimit)
    return "an image of 2**31 numbers or more";
  if (p.batch * p.height * p.width >= kLimit) return "2**31 pixels or more";
  return nullptr;
}

bool Empty(const StemProblem& p) {
  return p.batch * p.height * p.width * p.heads * p.head_dim == 0;
}

const char* LaunchError() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* CudaStemForward(const StemProblem& p, const StemForwardArrays& a, void* stream) {
  if (const char* refusal = Refusal(p)) return refusal;
  if (Empty(p)) return nullptr;
  const auto on = static_cast<cudaStream_t>(stream);
  const BlockGrid g = PlanBlocks(p);
  const auto tiles = [&](auto stem) {
    using S = decltype(stem);
    const int groups = CeilDiv(g.heads, kForwardHeads), bytes = kWarps * kStripFloats * 4;
    const int work = CeilDiv(g.strips, kWarps);
    const int workers = PixelWorkers(TileForward<S>, work, groups, bytes, work);
    LaunchKernel(TileForward<S>, workers * groups, kThreads, bytes, on, g, groups,
            static_cast<const typename S::T*>(a.pixels), a.w_qk, a.w_v,
            static_cast<typename S::T*>(a.output));
  };
  const auto plain = [&](auto stem) {
    using S = decltype(stem);
    const Layout layout(g, S::kChannels);
    const int groups = g.heads * g.chunks, bytes = layout.forward * 4;
    const int workers = PixelWorkers(PlainForward<S>, layout.turns, groups, bytes, layout.turns);
    LaunchKernel(PlainForward<S>, workers * groups, kThreads, bytes, on, g, layout,
            static_cast<const typename S::T*>(a.pixels), a.w_qk, a.w_v,
            static_cast<typename S::T*>(a.output));
  };
  WithStem(p, tiles, plain);
  return LaunchError();
}

const char* CudaStemBackward(const StemProblem& p, const StemBackwardArrays& a, void* stream) {
  if (const char* refusal = Refusal(p)) return refusal;
  const auto on = static_cast<cudaStream_t>(stream);
  const Sums sums = CountSums(p);
  if (Empty(p)) {
    cudaMemsetAsync(a.d_w_v, 0, sums.values * sizeof(float), on);
    cudaMemsetAsync(a.d_w_qk, 0, sums.similarity * sizeof(float), on);
    return LaunchError();
  }
  const BlockGrid g = PlanBlocks(p);
  const int limit = static_cast<int>(StemGpuWorkers(p));
  int workers = 0;
  const auto tiles = [&](auto stem) {
    using S = decltype(stem);
    const int groups = CeilDiv(g.heads, kBackwardHeads), bytes = kWarps * kBackwardBytes;
    workers = PixelWorkers(TileBackward<S>, CeilDiv(g.strips, kWarps), groups, bytes, limit);
    LaunchKernel(TileBackward<S>, workers * groups, kThreads, bytes, on, g, groups,
            static_cast<const typename S::T*>(a.pixels), a.w_qk, a.w_v,
            static_cast<const typename S::T*>(a.d_output), sums, a.workspace);
  };
  const auto plain = [&](auto stem) {
    using S = decltype(stem);
    const Layout layout(g, S::kChannels);
    const int bytes = layout.backward * 4;
    workers = PixelWorkers(PlainBackward<S>, layout.turns, g.heads, bytes, limit);
    LaunchKernel(PlainBackward<S>, workers * g.heads, kThreads, bytes, on, g, layout,
            static_cast<const typename S::T*>(a.pixels), a.w_qk, a.w_v,
            static_cast<const typename S::T*>(a.d_output), sums, a.workspace);
  };
  WithStem(p, tiles, plain);
  LaunchKernel(SumWorkers, CeilDiv(sums.All(), kWarpSize), kSumThreads, 0, on, a.workspace, workers, sums,
          a.d_w_v, a.d_w_qk);
  return LaunchError();
}

}  // namespace sasa
