// What the forward and backward SIMT stem kernels share: a thread's query, and the pixels and value
// projections in shared memory.
//
// A thread is a query. A thread block processes as many blocks of pixels at a time as it has
// threads for, which is called a tile.
#ifndef SASA_TF_NATIVE_CUDA_STEM_SIMT_CUH_
#define SASA_TF_NATIVE_CUDA_STEM_SIMT_CUH_

#include "cuda/stem_partition.cuh"

namespace sasa::stem {

constexpr int kRowStride = kSliceChannels + 4;    // of the rows of d_output in shared memory
constexpr int kProbabilityStride = kThreads + 1;  // of the probabilities, by key, in shared memory

// Offsets in shared memory, in floats.
struct SmemLayout {
  int positions, tile_blocks, tiles;
  int pixels, mask, w_v, probabilities, dp, rows;
  int forward_size, backward_size;

  SmemLayout(const BlockPartition& g, int channels) {
    positions = g.block_rows * g.block_columns;
    tile_blocks = kThreads / positions;
    tiles = CeilDiv(g.blocks, tile_blocks);
    w_v = 0;
    pixels = w_v + positions * channels * kSliceChannels;
    mask = pixels + kThreads * channels;
    rows = forward_size = mask + kThreads;
    probabilities = rows + kThreads * kRowStride;
    dp = probabilities + positions * kProbabilityStride;
    backward_size = dp + positions * kProbabilityStride;
  }
};

// The query of this thread in a tile.
struct ThreadQuery {
  int block, position;  // block of the tile
  bool inside;          // of the image
  int64_t pixel;

  __device__ ThreadQuery(const BlockPartition& g, const SmemLayout& layout, int tile) {
    block = threadIdx.x / layout.positions;
    position = threadIdx.x - block * layout.positions;
    const int index = tile * layout.tile_blocks + block;
    const int row = index / g.grid_columns, image = row / g.grid_rows;
    const int y =
        (row - image * g.grid_rows) * g.block_rows - g.pad_top + position / g.block_columns;
    const int x =
        (index - row * g.grid_columns) * g.block_columns - g.pad_left + position % g.block_columns;
    inside = block < layout.tile_blocks && index < g.blocks && y >= 0 && y < g.height && x >= 0 &&
             x < g.width;
    pixel = (static_cast<int64_t>(image) * g.height + y) * g.width + x;
  }
};

// Loads a slice of kSliceChannels channels of a pixel's head, with zeros from `count` on.
template <typename T>
__device__ inline void LoadSlice(const T* from, int count, float (&to)[kSliceChannels]) {
#pragma unroll
  for (int d = 0; d < kSliceChannels; ++d) to[d] = d < count ? LoadFloat(from + d) : 0.f;
}
// Stores its first `count` channels; `vectorize` requires 16-byte alignment.
template <typename T>
__device__ inline void StoreSlice(const float (&from)[kSliceChannels], int count, bool vectorize,
                                  T* to) {
  constexpr int kVector = 16 / sizeof(T);
  struct alignas(16) Vector {
    T elements[kVector];
  };
#pragma unroll
  for (int d = 0; d < kSliceChannels; d += kVector) {
    Vector vector;
#pragma unroll
    for (int i = 0; i < kVector; ++i) vector.elements[i] = ConvertTo<T>(from[d + i]);
    if (vectorize && d < count) {
      *reinterpret_cast<Vector*>(to + d) = vector;
    } else {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        if (d + i < count) to[d + i] = vector.elements[i];
      }
    }
  }
}

// One head of a thread block's tile.
template <typename S>
struct SimtTile {
  using T = typename S::T;
  static constexpr int kChannels = S::kChannels;
  const BlockPartition& g;
  const SmemLayout& layout;
  float* memory;
  int head;

  // Loads a slice of the head's w_v as [position][channel of the pixels][kSliceChannels].
  __device__ void LoadWv(const float* w_v, int slice) const {
    for (int i = threadIdx.x; i < layout.positions * kChannels * kSliceChannels; i += kThreads) {
      const int channel = slice * kSliceChannels + i % kSliceChannels;
      float x = 0.f;
      if (channel < g.head_dim) {
        x = __ldg(w_v + (static_cast<int64_t>(i / kSliceChannels) * g.heads + head) * g.head_dim +
                  channel);
      }
      memory[layout.w_v + i] = x;
    }
  }
  __device__ const float* Wv(int position, int c) const {
    return memory + layout.w_v + (position * kChannels + c) * kSliceChannels;
  }
  __device__ const float* Pixel(int block, int position) const {
    return memory + layout.pixels + (block * layout.positions + position) * kChannels;
  }
  __device__ float Mask(int block, int position) const {
    return memory[layout.mask + block * layout.positions + position];
  }

  // Loads the query's pixel, and writes it to shared memory for use as a key.
  __device__ void LoadPixel(const ThreadQuery& query, const T* pixels,
                            float (&x)[kChannels]) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      x[c] = query.inside ? LoadFloat(pixels + query.pixel * kChannels + c) : 0.f;
      memory[layout.pixels + threadIdx.x * kChannels + c] = x[c];
    }
    memory[layout.mask + threadIdx.x] = query.inside ? 0.f : kMaskedLogit;
  }

  // Computes y = x^T w_qk, in units of log2.
  __device__ void ProjectQuery(const float (&x)[kChannels], const float* w_qk,
                               float (&y)[kChannels]) const {
#pragma unroll
    for (int e = 0; e < kChannels; ++e) {
      y[e] = 0.f;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        y[e] += x[c] * __ldg(w_qk + (head * kChannels + c) * kChannels + e);
      }
      y[e] *= kLog2E;
    }
  }
  __device__ float Logit(const float (&y)[kChannels], int block, int position) const {
    float logit = Mask(block, position);
#pragma unroll
    for (int e = 0; e < kChannels; ++e) logit += y[e] * Pixel(block, position)[e];
    return logit;
  }
  __device__ float MaxLogit(const float (&y)[kChannels], int block) const {
    float max_logit = kMaskedLogit;
    for (int q = 0; q < layout.positions; ++q) max_logit = fmaxf(max_logit, Logit(y, block, q));
    return max_logit;
  }
};

// Calls `launch` with the traits that match the problem's type and channels.
template <typename Launch>
void DispatchTypeAndChannels(const StemProblem& p, Launch launch) {
  if (p.type == DType::kFloat32) {
    DispatchChannels<float>(p, launch);
  } else if (p.type == DType::kBfloat16) {
    DispatchChannels<Bfloat16>(p, launch);
  } else {
    DispatchChannels<Float16>(p, launch);
  }
}

}  // namespace sasa::stem

#endif  // SASA_TF_NATIVE_CUDA_STEM_SIMT_CUH_
