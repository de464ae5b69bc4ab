// The SIMT kernels of local attention, in float32 FMAs, for every element type: how work is divided
// over threads.
//
// A thread owns a strip of neighboring queries of a row (in dK/dV: keys) of one head, or with wide
// heads a slice of their channels, and loops over the rows of the window. A key that it loads is
// used for all queries of the strip whose windows contain it. Lanes are ordered by channels first,
// so that a warp loads contiguous memory; windows of different threads overlap in the L1 cache.
// Shared memory holds only the relative tables.
#ifndef SASA_TF_NATIVE_CUDA_SIMT_TRAITS_CUH_
#define SASA_TF_NATIVE_CUDA_SIMT_TRAITS_CUH_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/element_types.cuh"
#include "cuda/warp_reduce.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

// The lanes of a head, a power of two.
constexpr int SimtHeadLanes(int head_dim, int thread_channels) {
  int lanes = 1;
  while (lanes * thread_channels < head_dim) lanes *= 2;
  return lanes;
}

// How a head is divided: the channels of a thread, and the lanes. If the minimum and the maximum
// differ, the lanes are known at run time. Heads may be narrower than the channels of all lanes.
template <int kThreadChannels_, int kMinHeadLanes_, int kMaxHeadLanes_ = kMinHeadLanes_>
struct SimtHead {
  static constexpr int kThreadChannels = kThreadChannels_;
  static constexpr int kMinHeadLanes = kMinHeadLanes_, kMaxHeadLanes = kMaxHeadLanes_;
};

// The problem as the kernels need it, and its division into CTA tiles.
struct SimtGrid {
  int height, width, heads, head_dim, half;  // half: channels of a relative table
  int head_lanes;
  int window_rows, dilation_rows, dilation_columns;
  bool mask_border, has_key, has_relative;
  float scale;
  int qkv_parts;
  DType type;
  int strips;                                // of an image row
  int cta_heads, cta_strips, cta_rows;       // of a CTA tile
  int tile_columns, tile_rows, head_groups;  // CTA tiles of an image
  int num_tiles;
};

// Config defines kThreadChannels, kMinHeadLanes, kMaxHeadLanes, kStrip (pixels of a strip),
// kWindowColumns and kMinCtasPerSm. The rows of the window are known at run time.
template <typename Config>
struct SimtKernelTraits {
  static constexpr int kThreadChannels = Config::kThreadChannels;
  static constexpr int kMinHeadLanes = Config::kMinHeadLanes;
  static constexpr int kMaxHeadLanes = Config::kMaxHeadLanes;
  static constexpr int kStrip = Config::kStrip, kWindowColumns = Config::kWindowColumns;
  static constexpr int kHaloColumns = kStrip + kWindowColumns - 1;  // of the strip's windows
  static constexpr int kThreads = 128, kMinCtasPerSm = Config::kMinCtasPerSm;

  __host__ __device__ static constexpr int HeadLanes(const SimtGrid& g) {
    return kMinHeadLanes == kMaxHeadLanes ? kMaxHeadLanes : g.head_lanes;
  }
  // Channels of all lanes of a head.
  __host__ __device__ static constexpr int PaddedHeadDim(const SimtGrid& g) {
    return kThreadChannels * HeadLanes(g);
  }
};

// Calls `launch` with the head layout and the columns of the window, as an integral constant.
template <typename Launch>
void DispatchSimtWindow(const LocalAttentionProblem& p, Launch launch) {
  const auto with_columns = [&](auto columns) {
    if (p.head_dim <= 8) return launch(SimtHead<8, 1>(), columns);
    launch(SimtHead<16, 1, 8>(), columns);
  };
  if (p.kernel_columns == 3) with_columns(std::integral_constant<int, 3>());
  if (p.kernel_columns == 5) with_columns(std::integral_constant<int, 5>());
  if (p.kernel_columns == 7) with_columns(std::integral_constant<int, 7>());
  if (p.kernel_columns == 9) with_columns(std::integral_constant<int, 9>());
  if (p.kernel_columns == 11) with_columns(std::integral_constant<int, 11>());
}

struct SimtLaunchPlan {
  SimtGrid grid;
  int threads;
};

// Chooses the CTA tile: few idle threads, and near to square, so that windows overlap.
template <typename Traits>
constexpr SimtLaunchPlan PlanSimtLaunch(const LocalAttentionProblem& p) {
  SimtGrid g = {};
  g.height = static_cast<int>(p.height);
  g.width = static_cast<int>(p.width);
  g.heads = static_cast<int>(p.heads);
  g.head_dim = static_cast<int>(p.head_dim);
  g.half = g.head_dim / 2;
  g.window_rows = p.kernel_rows;
  g.dilation_rows = p.dilation_rows;
  g.dilation_columns = p.dilation_columns;
  g.mask_border = p.mask_border;
  g.has_key = p.has_key;
  g.has_relative = p.has_relative;
  g.scale = p.scale;
  g.qkv_parts = p.qkv_parts;
  g.type = p.type;
  g.strips = CeilDiv(CeilDiv(g.width, g.dilation_columns), Traits::kStrip) * g.dilation_columns;
  g.head_lanes = SimtHeadLanes(g.head_dim, Traits::kThreadChannels);
  g.cta_heads = std::min(g.heads, std::max(1, 64 / g.head_lanes));
  g.head_groups = CeilDiv(g.heads, g.cta_heads);
  const int strip_threads = g.cta_heads * g.head_lanes;
  double best = 0;
  int threads = 0;
  for (int strips = 1; strips <= g.strips && strips * strip_threads <= Traits::kThreads; ++strips) {
    for (int rows = 1; rows <= g.height && rows * strips * strip_threads <= Traits::kThreads;
         ++rows) {
      const int padded = CeilDiv(rows * strips * strip_threads, kWarpSize) * kWarpSize;
      const double tiles = double(CeilDiv(g.strips, strips)) * CeilDiv(g.height, rows);
      const double busy = double(g.strips) * g.height * strip_threads / (tiles * padded);
      const double area = double(strips) * Traits::kStrip * rows;
      const double halo = (strips * Traits::kStrip + Traits::kWindowColumns - 1.) *
                          (rows + g.window_rows - 1.) / area;
      const double score = busy / (1 + 0.1 * halo);
      if (score > best) {
        best = score;
        g.cta_strips = strips;
        g.cta_rows = rows;
        threads = padded;
      }
    }
  }
  g.tile_columns = CeilDiv(g.strips, g.cta_strips);
  g.tile_rows = CeilDiv(g.height, g.cta_rows);
  g.num_tiles = static_cast<int>(p.batch) * g.tile_columns * g.tile_rows * g.head_groups;
  return {g, threads};
}

// The strip of a thread in a CTA tile: the head, the slice of its channels, and the first pixel.
template <typename Traits>
struct SimtStrip {
  int image, head, slice, y, x;
  int channels;  // from the slice's first to the head's last
  bool active;
  // Of the slice's first channel in the image's first pixel, and from pixel to pixel: in query,
  // key, value and their gradients, and in the output and its gradient.
  int64_t qkv_origin, output_origin;
  int qkv_stride, output_stride;
  const float *row_table, *column_table;  // the slice's

  // `tables`: as LoadRelativeTables writes them.
  __device__ SimtStrip(const SimtGrid& g, int tile, const float* tables) {
    int rest = threadIdx.x;
    slice = rest % Traits::HeadLanes(g);
    channels = g.head_dim - slice * Traits::kThreadChannels;
    rest /= Traits::HeadLanes(g);
    head = rest % g.cta_heads;
    rest /= g.cta_heads;
    int strip = rest % g.cta_strips;
    y = rest / g.cta_strips;
    active = y < g.cta_rows;
    head += tile % g.head_groups * g.cta_heads;
    tile /= g.head_groups;
    strip += tile % g.tile_columns * g.cta_strips;
    tile /= g.tile_columns;
    y += tile % g.tile_rows * g.cta_rows;
    image = tile / g.tile_rows;
    active = active && head < g.heads && strip < g.strips && y < g.height;
    if (!active) head = strip = y = 0;
    const int phase_strips = g.strips / g.dilation_columns;
    x = strip / phase_strips + strip % phase_strips * Traits::kStrip * g.dilation_columns;
    row_table = tables + slice * Traits::kThreadChannels;
    column_table = row_table + g.window_rows * Traits::PaddedHeadDim(g);
    output_stride = g.heads * g.head_dim;
    qkv_stride = g.qkv_parts * output_stride;
    output_origin = ImageOffset(g, 1);
    qkv_origin = ImageOffset(g, g.qkv_parts);
  }

  // Image column of the strip's pixel i, which may be in the halo.
  __device__ int Column(const SimtGrid& g, int i) const { return x + i * g.dilation_columns; }
  __device__ bool InImage(const SimtGrid& g, int column) const {
    return active && column >= 0 && column < g.width;
  }
  // Offset of the pixel's head in LSE and delta.
  __device__ int64_t HeadOffset(const SimtGrid& g, int row, int column) const {
    const int64_t image_row = static_cast<int64_t>(image) * g.height + row;
    return (image_row * g.width + column) * g.heads + head;
  }

 private:
  __device__ int64_t ImageOffset(const SimtGrid& g, int parts) const {
    const int64_t pixels = static_cast<int64_t>(image) * g.height * g.width;
    return (pixels * g.heads * parts + head) * g.head_dim + slice * Traits::kThreadChannels;
  }
};

// Sums each of the numbers over the lanes of a head.
template <typename Traits, int kRows, int kColumns>
__device__ inline void SumOverHeadLanes(const SimtGrid& g, float (&x)[kRows][kColumns]) {
#pragma unroll
  for (int distance = 1; distance < Traits::kMaxHeadLanes; distance *= 2) {
    if (distance >= Traits::HeadLanes(g)) break;
#pragma unroll
    for (auto& row : x) {
#pragma unroll
      for (float& sum : row) sum += __shfl_xor_sync(kFullMask, sum, distance);
    }
  }
}

// Sums each of the numbers over the lanes of a warp that have the same slice of channels.
template <typename Traits, int kCount>
__device__ inline void SumOverHeads(const SimtGrid& g, float (&x)[kCount]) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    if (distance >= Traits::kMaxHeadLanes || distance >= Traits::HeadLanes(g)) {
#pragma unroll
      for (float& sum : x) sum += __shfl_xor_sync(kFullMask, sum, distance);
    }
  }
}

template <int kCount>
__device__ inline float Dot(const float (&a)[kCount], const float* b, float sum) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) sum = fmaf(a[i], b[i], sum);
  return sum;
}

}  // namespace
}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_SIMT_TRAITS_CUH_
