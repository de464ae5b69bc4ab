// Local attention on the tensor cores of NVIDIA GPUs (sm_80 and later), half precision.
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
#include <type_traits>

#include "cuda_launch.h"
#include "cuda_numbers.cuh"
#include "local_attention.h"

namespace sasa {
namespace {

constexpr int kPatch = 4;                   // pixels along each side
constexpr int kTile = 2 * kPatch;           // that a thread block owns
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
constexpr int kTermStride = 24;     // of a query's terms in shared memory; no conflicts
constexpr float kNever = -60000.f;  // as a term of a logit, in half precision
__device__ constexpr float kZeros[4] = {0.f, 0.f, 0.f, 0.f};

// Divides numbers below 2**31 by one that does not change, without a division.
struct Divisor {
  uint32_t by, factor, shift;

  Divisor() = default;
  explicit Divisor(uint32_t by) : by(by), shift(0) {
    while ((uint64_t{1} << shift) < by) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - by)) / by + 1);
  }
  // Returns the remainder; `number` becomes the quotient.
  __device__ int Take(uint32_t& number) const {
    const uint32_t quotient = (__umulhi(number, factor) + number) >> shift;
    const int remainder = number - quotient * by;
    number = quotient;
    return remainder;
  }
};

struct TileGrid {
  int height, width, heads;
  int row_dilation, column_dilation;
  bool mask_border, has_key, has_relative;
  float scale;
  int parts;                  // that query, key, value and their gradients share pixel by pixel
  int row_step, column_step;  // to the next pixel of the phase, counted in heads of one part
  Divisor head_blocks, tiles_x, tiles_y, row_phases, column_phases;
  int tiles;
};

template <typename T_, int kDepth_>
struct Head {
  using T = T_;
  static constexpr int kDepth = kDepth_, kChunks = kDepth / 8, kHalf = kDepth / 2;
  static constexpr int kHeads = kDepth < 32 ? 32 / kDepth : 1;  // of a thread block
  static constexpr int kPlanes = kHeads * kChunks;
  static constexpr int kWarps = 4;
  static constexpr int kBlocks = kDepth < 64 ? 4 : 2;  // at a time on a multiprocessor
  static constexpr int kThreads = 32 * kWarps;
  // A warp has one head, and of its four patches each that is so many after the one before.
  static constexpr int kPatchStep = kWarps / kHeads;
};

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes, or zeros where there is nothing to copy.
__device__ inline void CopyAsync(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}

__device__ inline void LoadMatrices(uint32_t from, uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}
__device__ inline void LoadTransposed(uint32_t from, uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from));
}
__device__ inline void LoadTwoMatrices(uint32_t from, uint32_t& a, uint32_t& b) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(a), "=r"(b)
               : "r"(from));
}
__device__ inline void LoadTwoTransposed(uint32_t from, uint32_t& a, uint32_t& b) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(a), "=r"(b)
               : "r"(from));
}
__device__ inline uint32_t Transposed(uint32_t a) {
  uint32_t b;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(b) : "r"(a));
  return b;
}

// sum [16, 8] = start + a [16, 16] b [16, 8].
template <typename T>
__device__ inline void Multiply16(float (&sum)[4], const float (&start)[4], uint32_t a0,
                                  uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%10,%11,%12,%13};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(start[0]), "f"(start[1]),
          "f"(start[2]), "f"(start[3]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%10,%11,%12,%13};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(start[0]), "f"(start[1]),
          "f"(start[2]), "f"(start[3]));
  }
}
template <typename T>
__device__ inline void Multiply16(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                  uint32_t a3, uint32_t b0, uint32_t b1) {
  Multiply16<T>(sum, sum, a0, a1, a2, a3, b0, b1);
}
// sum [16, 8] = start + a [16, 8] b [8, 8].
template <typename T>
__device__ inline void Multiply8(float (&sum)[4], const float (&start)[4], uint32_t a0, uint32_t a1,
                                 uint32_t b0) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%7,%8,%9,%10};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(start[0]), "f"(start[1]), "f"(start[2]), "f"(start[3]));
  } else {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
        "{%7,%8,%9,%10};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(start[0]), "f"(start[1]), "f"(start[2]), "f"(start[3]));
  }
}
template <typename T>
__device__ inline void Multiply8(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  Multiply8<T>(sum, sum, a0, a1, b0);
}

// Sum and maximum over the four lanes that hold a row of a matrix.
__device__ inline float RowSum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}
__device__ inline float RowMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// A lane's place in the fragments of the matrix instructions.
struct Lane {
  int number, row, pair;        // row of 8; pair of columns
  int matrix_row, half, upper;  // whose address it gives to ldmatrix
  __device__ Lane() {
    number = threadIdx.x % kWarp;
    row = number / 4;
    pair = number % 4;
    matrix_row = number % 8;
    half = number / 8 % 2;
    upper = number / 16;
  }
};

// The part of the images that a thread block works on. Rows and columns are those of the phase,
// from the tile's first.
struct Area {
  int head, y, x;
  int rows, columns;  // that there are; beyond the tile too
  int64_t first;      // pixel, counted in heads of one part from the first image's

  __device__ Area(const TileGrid& g, uint32_t tile, int heads) {
    head = g.head_blocks.Take(tile) * heads;
    x = g.tiles_x.Take(tile) * kTile;
    y = g.tiles_y.Take(tile) * kTile;
    const int phase_x = g.column_phases.Take(tile), phase_y = g.row_phases.Take(tile);
    const int row = y * g.row_dilation + phase_y, column = x * g.column_dilation + phase_x;
    rows = g.height - row;
    columns = g.width - column;
    // Rounded up; dilation is rare.
    if (g.row_dilation > 1) rows = (rows + g.row_dilation - 1) / g.row_dilation;
    if (g.column_dilation > 1) columns = (columns + g.column_dilation - 1) / g.column_dilation;
    first = (static_cast<int64_t>(tile) * g.height + row) * g.width + column;
    first *= g.heads;
  }
  // Of the tile's first pixel, the thread block's first head.
  __device__ int64_t First(int parts) const { return first * parts + head; }
  __device__ bool RowInside(int i) const { return y + i >= 0 && i < rows; }
  __device__ bool ColumnInside(int i) const { return x + i >= 0 && i < columns; }
};

// Copies the tile and the halo around it into planes [head, chunk of 8 channels][pixel].
template <typename S>
__device__ inline void CopyRegion(const TileGrid& g, const Area& area, const typename S::T* from,
                                  int parts, bool there, uint32_t planes) {
  using T = typename S::T;
  constexpr int kRows = S::kThreads / (16 * S::kPlanes);
  static_assert(kSide <= 16 && kRows > 0 && kSide % kRows == 0);
  const int plane = threadIdx.x % S::kPlanes, x = threadIdx.x / S::kPlanes % 16 - kKernel / 2;
  if (x >= kSide - kKernel / 2) return;
  there = there && area.head + plane / S::kChunks < g.heads && area.ColumnInside(x);
  const int row = g.row_step * parts * S::kDepth;
  const int top = static_cast<int>(threadIdx.x / (16 * S::kPlanes)) - kKernel / 2;
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
  for (int i = threadIdx.x; i < 16 * S::kDepth; i += S::kThreads) {
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
template <typename T, int kThreads>
__device__ inline void FillOneHot(T* one_hot) {
  for (int i = threadIdx.x; i < kSlots * kTermSlots; i += kThreads) {
    const int pixel = i % kSlots, slot = i / kSlots;
    bool hot = slot == kNowhereSlot;
    if (pixel < kCovered) {
      hot = slot == pixel / kReachSide || slot == kColumnSlot + pixel % kReachSide;
    }
    one_hot[(slot / 8 * kSlots + pixel) * 8 + slot % 8] = T(hot ? 1.f : 0.f);
  }
}

// A warp's patch: its pixels, and the fragments of the 16 x D matrix that they are.
template <typename S>
struct Patch {
  using T = typename S::T;
  int top, left;   // in the tile
  bool inside[2];  // of the lane's two rows
  int pixel[2];    // counted in heads of one part from the tile's first

  __device__ Patch(const TileGrid& g, const Area& area, const Lane& lane, int number) {
    top = number / 2 * kPatch;
    left = number % 2 * kPatch;
    const int y = top + lane.row / 4, x = left + lane.row % 4;
    pixel[0] = y * g.row_step + x * g.column_step;
    pixel[1] = pixel[0] + 2 * g.row_step;
    inside[0] = x < area.columns && y < area.rows;
    inside[1] = x < area.columns && y + 2 < area.rows;
  }
  // Whether it has pixels.
  __device__ bool Live(const Area& area) const { return top < area.rows && left < area.columns; }
  // Of its first pixel in a region, in pixels.
  __device__ int Corner() const { return top * kStride + left; }

  // From and to the head in the tile's first pixel, at the lane's pair of channels.
  __device__ void Load(const T* from, int parts, bool there, uint32_t (&to)[S::kChunks][2]) const {
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

// Copies fragments.
template <int kChunks>
__device__ inline void Assign(uint32_t (&to)[kChunks][2], const uint32_t (&from)[kChunks][2]) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    to[c][0] = from[c][0];
    to[c][1] = from[c][1];
  }
}

// A covered pixel's place in the region, from the patch's corner.
__device__ inline int Region(int covered) {
  return covered / kReachSide * kStride + covered % kReachSide;
}

// Where in a plane the lane's rows of the matrices of covered pixels begin, by step (two steps are
// loaded at a time where a head is one chunk).
template <typename S>
struct Offsets {
  int of[kSteps];
  __device__ Offsets(const Lane& lane) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int pixel = S::kChunks == 1
                            ? (2 * step + lane.upper) * 16 + lane.half * 8 + lane.matrix_row
                            : step * 16 + lane.half * 8 + lane.matrix_row;
      of[step] = pixel < kCovered ? Region(pixel) * 16 : 0;
      if (S::kChunks > 1) of[step] += lane.upper * kPlane;
    }
  }
};

// The matrices of 16 covered pixels: [chunk][first or last 8 pixels], pixels as rows, or
// (transposed) as columns. For heads of one chunk, two steps are one load.
template <typename S, bool kTransposed>
struct Pixels {
  uint32_t now[S::kChunks][2], next[2];
  // `base`: of the head's first plane and the patch's first pixel.
  __device__ void Load(uint32_t base, const Offsets<S>& offsets, int step) {
    uint32_t four[4];
    if constexpr (S::kChunks == 1) {
      if (step % 2) {
        now[0][0] = next[0];
        now[0][1] = next[1];
        return;
      }
      Four(base + offsets.of[step / 2], four);
      now[0][0] = four[0];
      now[0][1] = four[1];
      next[0] = four[2];
      next[1] = four[3];
    } else {
#pragma unroll
      for (int c = 0; c < S::kChunks; c += 2) {
        Four(base + c * kPlane + offsets.of[step], four);
        now[c][0] = four[0];
        now[c][1] = four[1];
        now[c + 1][0] = four[2];
        now[c + 1][1] = four[3];
      }
    }
  }
  __device__ static void Four(uint32_t from, uint32_t (&to)[4]) {
    if constexpr (kTransposed) {
      LoadTransposed(from, to);
    } else {
      LoadMatrices(from, to);
    }
  }
};

// sum [2 of 8 pixels] = start + rows of `a` [16, D] times pixels.
template <typename S>
__device__ inline void Logits(const uint32_t (&a)[S::kChunks][2], const Pixels<S, false>& b,
                              const float (&low_start)[4], const float (&high_start)[4],
                              float (&low)[4], float (&high)[4]) {
  using T = typename S::T;
  if constexpr (S::kChunks == 1) {
    Multiply8<T>(low, low_start, a[0][0], a[0][1], b.now[0][0]);
    Multiply8<T>(high, high_start, a[0][0], a[0][1], b.now[0][1]);
  } else {
#pragma unroll
    for (int c = 0; c < S::kChunks; c += 2) {
      const auto& low_before = c == 0 ? low_start : const_cast<const float (&)[4]>(low);
      const auto& high_before = c == 0 ? high_start : const_cast<const float (&)[4]>(high);
      Multiply16<T>(low, low_before, a[c][0], a[c][1], a[c + 1][0], a[c + 1][1], b.now[c][0],
                    b.now[c + 1][0]);
      Multiply16<T>(high, high_before, a[c][0], a[c][1], a[c + 1][0], a[c + 1][1], b.now[c][1],
                    b.now[c + 1][1]);
    }
  }
}

// sum [16, D] += weights [16, 16 pixels] times the pixels' channels.
template <typename S>
__device__ inline void Gather(const uint32_t (&a)[4], const Pixels<S, true>& b,
                              float (&sum)[S::kChunks][4]) {
#pragma unroll
  for (int c = 0; c < S::kChunks; ++c) {
    Multiply16<typename S::T>(sum[c], a[0], a[1], a[2], a[3], b.now[c][0], b.now[c][1]);
  }
}

// sum [16, 8], all columns alike, += the sums of the rows of weights.
template <typename T>
__device__ inline void SumRows(const uint32_t (&a)[4], float (&sum)[4]) {
  const uint32_t one = Pack<T>(1.f, 1.f);
  Multiply16<T>(sum, a[0], a[1], a[2], a[3], one, one);
}

template <typename T>
__device__ inline void PackRows(const float (&low)[4], const float (&high)[4], uint32_t (&a)[4]) {
  a[0] = Pack<T>(low[0], low[1]);
  a[1] = Pack<T>(low[2], low[3]);
  a[2] = Pack<T>(high[0], high[1]);
  a[3] = Pack<T>(high[2], high[3]);
}

// The tables as fragments: kept where they are few, else loaded whenever they are used.
template <typename S>
struct Tables {
  static constexpr bool kKept = S::kChunks <= 2;
  uint32_t address;
  uint32_t kept[kKept ? S::kChunks : 1][4];

  __device__ Tables(const void* tables, const Lane& lane)
      : address(SharedAddress(tables) + (lane.upper * 16 + lane.half * 8 + lane.matrix_row) * 16) {}
  // After the tables have been filled.
  __device__ void Keep() {
    if constexpr (kKept) {
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) LoadMatrices(address + 2 * c * 16 * 16, kept[c]);
    }
  }
  // Of two chunks, counted through rounded numbers and remainders.
  __device__ void Get(int pair, uint32_t (&to)[4]) const {
    if constexpr (kKept) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i] = kept[pair][i];
    } else {
      LoadMatrices(address + 2 * pair * 16 * 16, to);
    }
  }
};

// q.r of 16 queries with all lines of the tables, to shared memory as [query][16 slots].
template <typename S>
__device__ inline void QueryTerms(const uint32_t (&q)[S::kChunks][2], const Tables<S>& tables,
                                  const Lane& lane, __half* terms) {
  using T = typename S::T;
  float u[2][4] = {};
  uint32_t b[4];
  if constexpr (S::kChunks == 1) {
    tables.Get(0, b);
#pragma unroll
    for (int low = 0; low < 2; ++low) {
      Multiply8<T>(u[0], q[0][0], q[0][1], b[2 * low]);
      Multiply8<T>(u[1], q[0][0], q[0][1], b[2 * low + 1]);
    }
  } else {
#pragma unroll
    for (int c = 0; c < 2 * S::kChunks; c += 2) {
      tables.Get(c / 2, b);
      const auto& lo = q[c % S::kChunks];
      const auto& hi = q[c % S::kChunks + 1];
      Multiply16<T>(u[0], lo[0], lo[1], hi[0], hi[1], b[0], b[2]);
      Multiply16<T>(u[1], lo[0], lo[1], hi[0], hi[1], b[1], b[3]);
    }
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
  static constexpr int kPlanesBytes = S::kPlanes * kPlane;
  static constexpr int kTables = 2 * 16 * S::kDepth * 2;
  static constexpr int kOneHot = kSlots * kTermSlots * 2;
  static constexpr int kTerms = S::kWarps * kTermHalves * 2;
  static constexpr int kSums = S::kWarps * 16 * kTermSlots * 4;  // of the terms' gradients
  static constexpr int kWeights = S::kWarps * kSlots * 8;        // log-sum-exp and delta
  static constexpr int kForward = 2 * kPlanesBytes + kTables + kOneHot + kTerms;
  static constexpr int kQuery = kForward + kOneHot + kSums;
  static constexpr int kFacts = S::kHeads * kSide * kStride * 8;
  static constexpr int kKeyTerms = kSteps * 32 * 8;
  static constexpr int kKey = 2 * kPlanesBytes + kTables + kTerms + kWeights + kFacts + kKeyTerms;
};

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    Forward(TileGrid g, const typename S::T* __restrict__ query,
            const typename S::T* __restrict__ key, const typename S::T* __restrict__ value,
            const float* __restrict__ rows, const float* __restrict__ columns,
            typename S::T* __restrict__ output, float* __restrict__ log_sum) {
  using T = typename S::T;
  using M = Memory<S>;
  extern __shared__ __align__(128) char memory[];
  T* tables = reinterpret_cast<T*>(memory + 2 * M::kPlanesBytes);
  __half* one_hot = reinterpret_cast<__half*>(memory + 2 * M::kPlanesBytes + M::kTables);
  const Lane lane;
  const int head = threadIdx.x / kWarp % S::kHeads, first_patch = threadIdx.x / kWarp / S::kHeads;
  __half* terms = one_hot + M::kOneHot / 2 + threadIdx.x / kWarp * kTermHalves;
  const uint32_t keys = SharedAddress(memory), values = keys + M::kPlanesBytes;
  FillTables<S>(g, rows, columns, tables);
  FillOneHot<__half, S::kThreads>(one_hot);
  FillConstants(lane, terms);
  const Offsets<S> offsets(lane);
  Tables<S> table_fragments(tables, lane);
  __syncthreads();
  table_fragments.Keep();
  const TermFragments fragments(lane);
  const float factor = g.scale * kLog2E;

  for (int tile = blockIdx.x; tile < g.tiles; tile += gridDim.x) {
    const Area area(g, tile, S::kHeads);
    // Of the warp's head in the tile's first pixel; of its numbers at the lane's pair of channels.
    const int64_t first = area.First(1) + head;
    const int64_t at = first * S::kDepth + 2 * lane.pair;
    const int64_t at_part = (area.First(g.parts) + head) * S::kDepth + 2 * lane.pair;
    const bool there = area.head + head < g.heads;
    __syncthreads();
    CopyRegion<S>(g, area, key, g.parts, g.has_key, keys);
    CopyRegion<S>(g, area, value, g.parts, true, values);
    uint32_t next[S::kChunks][2];
    Patch<S>(g, area, lane, first_patch).Load(query + at_part, g.parts, there, next);
    WaitForCopies();
    __syncthreads();
    for (int number = first_patch; number < 4 && there; number += S::kPatchStep) {
      const Patch<S> patch(g, area, lane, number);
      uint32_t q[S::kChunks][2], term[6];
      Assign(q, next);
      if (number + S::kPatchStep < 4) {
        Patch<S>(g, area, lane, number + S::kPatchStep).Load(query + at_part, g.parts, true, next);
      }
      if (!patch.Live(area)) continue;
      const uint32_t base = head * S::kChunks * kPlane + patch.Corner() * 16;
      QueryTerms<S>(q, table_fragments, lane, terms);
      __syncwarp();
      fragments.Load(g.mask_border, area, lane, patch.top, patch.left, terms, term);

      float logits[2 * kSteps][4];
      Pixels<S, false> k;
      float top[2] = {kMasked, kMasked};
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        auto& low = logits[2 * step];
        auto& high = logits[2 * step + 1];
        k.Load(keys + base, offsets, step);
        Logits<S>(q, k, kZeros, kZeros, low, high);
        AddTerms(term, SharedAddress(one_hot), lane, step, low, high);
#pragma unroll
        for (int i = 0; i < 4; ++i) top[i / 2] = fmaxf(top[i / 2], fmaxf(low[i], high[i]));
      }
      float total[4] = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) top[half] = RowMax(top[half]) * factor;
      float sum[S::kChunks][4] = {};
      Pixels<S, true> v;
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
        v.Load(values + base, offsets, step);
        Gather<S>(weights, v, sum);
        SumRows<T>(weights, total);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (lane.pair == 0 && patch.inside[half]) {
          log_sum[first + patch.pixel[half]] = kLn2 * (top[half] + log2f(total[2 * half]));
        }
      }
      patch.Store(sum, 1.f / total[0], 1.f / total[2], output + at, 1);
      __syncwarp();
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
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
  T* tables = reinterpret_cast<T*>(memory + 2 * M::kPlanesBytes);
  __half* one_hot = reinterpret_cast<__half*>(memory + 2 * M::kPlanesBytes + M::kTables);
  T* one_hot_too = reinterpret_cast<T*>(one_hot + M::kOneHot / 2);  // of the gradients' type
  const Lane lane;
  const int head = threadIdx.x / kWarp % S::kHeads, first_patch = threadIdx.x / kWarp / S::kHeads;
  __half* all_terms = reinterpret_cast<__half*>(one_hot_too) + M::kOneHot / 2;
  __half* terms = all_terms + threadIdx.x / kWarp * kTermHalves;
  float* all_sums = reinterpret_cast<float*>(all_terms + M::kTerms / 2);
  float* sums = all_sums + threadIdx.x / kWarp * 16 * kTermSlots;
  const uint32_t keys = SharedAddress(memory), values = keys + M::kPlanesBytes;
  FillTables<S>(g, rows, columns, tables);
  FillOneHot<__half, S::kThreads>(one_hot);
  FillOneHot<T, S::kThreads>(one_hot_too);
  FillConstants(lane, terms);
  const Offsets<S> offsets(lane);
  Tables<S> table_fragments(tables, lane);
  __syncthreads();
  table_fragments.Keep();
  const TermFragments fragments(lane);
  const float factor = g.scale * kLog2E;
  float table_sum[S::kChunks][4] = {};

  for (int tile = blockIdx.x; tile < g.tiles; tile += gridDim.x) {
    const Area area(g, tile, S::kHeads);
    // Of the warp's head in the tile's first pixel; of its numbers at the lane's pair of channels.
    const int64_t first = area.First(1) + head;
    const int64_t at = first * S::kDepth + 2 * lane.pair;
    const int64_t at_part = (area.First(g.parts) + head) * S::kDepth + 2 * lane.pair;
    const bool there = area.head + head < g.heads;
    __syncthreads();
    CopyRegion<S>(g, area, key, g.parts, g.has_key, keys);
    CopyRegion<S>(g, area, value, g.parts, true, values);
    uint32_t next_q[S::kChunks][2], next_up[S::kChunks][2], out[S::kChunks][2];
    float next_lse[2];
    const auto load = [&](int number) {
      const Patch<S> patch(g, area, lane, number);
      patch.Load(query + at_part, g.parts, there, next_q);
      patch.Load(upstream + at, 1, there, next_up);
      patch.Load(output + at, 1, there, out);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        next_lse[half] = kAbsent;  // of a query that is not there: weights of zero
        if (there && patch.inside[half]) {
          next_lse[half] = __ldg(log_sum + first + patch.pixel[half]);
        }
      }
    };
    load(first_patch);
    WaitForCopies();
    __syncthreads();
    for (int number = first_patch; number < 4 && there; number += S::kPatchStep) {
      const Patch<S> patch(g, area, lane, number);
      uint32_t q[S::kChunks][2], up[S::kChunks][2], term[6];
      Assign(q, next_q);
      Assign(up, next_up);
      float minus_delta[2] = {0.f, 0.f};
      const float lse[2] = {next_lse[0] * kLog2E, next_lse[1] * kLog2E};
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float2 a = Widen(out[c][half], T()), b = Widen(up[c][half], T());
          minus_delta[half] = fmaf(-a.x, b.x, fmaf(-a.y, b.y, minus_delta[half]));
        }
      }
      if (number + S::kPatchStep < 4) load(number + S::kPatchStep);
      if (!patch.Live(area)) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        minus_delta[half] = RowSum(minus_delta[half]);
        if (patch.inside[half] && lane.pair == 0) {
          deltas[first + patch.pixel[half]] = -minus_delta[half];
        }
      }
      const float slope_start[4] = {minus_delta[0], minus_delta[0], minus_delta[1], minus_delta[1]};
      const uint32_t base = head * S::kChunks * kPlane + patch.Corner() * 16;
      QueryTerms<S>(q, table_fragments, lane, terms);
      __syncwarp();
      fragments.Load(g.mask_border, area, lane, patch.top, patch.left, terms, term);

      float dq[S::kChunks][4] = {}, dterm[3][4] = {};
      Pixels<S, false> k, v;
      Pixels<S, true> kt;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        float low[4], high[4], dlow[4], dhigh[4];
        k.Load(keys + base, offsets, step);
        v.Load(values + base, offsets, step);
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
        kt.Load(keys + base, offsets, step);
        Gather<S>(slopes, kt, dq);
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
        __syncwarp();
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
      __syncwarp();
    }
  }
  if (!g.has_relative) return;
  // The warps' sums [16 slots, D], one after the other.
  __syncthreads();
  float* total = reinterpret_cast<float*>(memory);
  for (int warp = 0; warp < S::kWarps; ++warp) {
    if (threadIdx.x / kWarp == warp) {
#pragma unroll
      for (int c = 0; c < S::kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float* to = total + (lane.row + 8 * (i / 2)) * S::kDepth + 8 * c + 2 * lane.pair + i % 2;
          *to = (warp ? *to : 0.f) + table_sum[c][i];
        }
      }
    }
    __syncthreads();
  }
  constexpr int own = 2 * kKernel * S::kHalf;
  for (int i = threadIdx.x; i < own; i += S::kThreads) {
    const int line = i / S::kHalf, channel = i % S::kHalf;
    const float sum = line < kKernel ? total[line * S::kDepth + channel]
                                     : total[(8 + line - kKernel) * S::kDepth + S::kHalf + channel];
    partials[static_cast<int64_t>(blockIdx.x) * own + i] = sum;
  }
}

// Where a lane finds, among a step's 16 queries' terms, those of the key patch's rows and columns:
// of two queries (its columns of the fragments), slots 0 to 3 for rows, 4 to 7 for columns.
template <int kThreads>
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
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    KeyBackward(TileGrid g, const typename S::T* __restrict__ query,
                const typename S::T* __restrict__ key, const typename S::T* __restrict__ value,
                const float* __restrict__ rows, const float* __restrict__ columns,
                const float* __restrict__ log_sum, const typename S::T* __restrict__ upstream,
                const float* __restrict__ deltas, typename S::T* __restrict__ key_gradient,
                typename S::T* __restrict__ value_gradient) {
  using T = typename S::T;
  using M = Memory<S>;
  extern __shared__ __align__(128) char memory[];
  T* tables = reinterpret_cast<T*>(memory + 2 * M::kPlanesBytes);
  const Lane lane;
  const int head = threadIdx.x / kWarp % S::kHeads, first_patch = threadIdx.x / kWarp / S::kHeads;
  __half* all_terms = reinterpret_cast<__half*>(tables) + M::kTables / 2;
  __half* terms = all_terms + threadIdx.x / kWarp * kTermHalves;
  float2* facts = reinterpret_cast<float2*>(all_terms + M::kTerms / 2);  // [head][pixel]
  float2* own = facts + M::kFacts / 8 + threadIdx.x / kWarp * kSlots;    // by covered pixel
  ushort4* key_terms = reinterpret_cast<ushort4*>(facts + (M::kFacts + M::kWeights) / 8);
  const uint32_t queries = SharedAddress(memory), upstreams = queries + M::kPlanesBytes;
  FillTables<S>(g, rows, columns, tables);
  FillConstants(lane, terms);
  FillKeyTerms<S::kThreads>(key_terms);
  const Offsets<S> offsets(lane);
  Tables<S> table_fragments(tables, lane);
  __syncthreads();
  table_fragments.Keep();
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
    const Area area(g, tile, S::kHeads);
    // Of the warp's head in the tile's first pixel; of its numbers at the lane's pair of channels.
    const int64_t first = area.First(1) + head;
    const int64_t at = first * S::kDepth + 2 * lane.pair;
    const int64_t at_part = (area.First(g.parts) + head) * S::kDepth + 2 * lane.pair;
    const bool there = area.head + head < g.heads;
    __syncthreads();
    CopyRegion<S>(g, area, query, g.parts, true, queries);
    CopyRegion<S>(g, area, upstream, 1, true, upstreams);
    // All are on their way before the first is needed.
    constexpr int kTurns = (kSide * kSide * S::kHeads + S::kThreads - 1) / S::kThreads;
    float2 found[kTurns];
    const auto each_fact = [&](auto visit) {
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int i = turn * S::kThreads + threadIdx.x;
        if (i >= kSide * kSide * S::kHeads) break;
        visit(found[turn], i % S::kHeads, i / S::kHeads / kSide, i / S::kHeads % kSide);
      }
    };
    each_fact([&](float2& fact, int of, int y, int x) {
      fact = make_float2(kAbsent, 0.f);  // of a query that is not there: weights of zero
      const int above = y - kKernel / 2, left = x - kKernel / 2;
      if (area.head + of < g.heads && area.RowInside(above) && area.ColumnInside(left)) {
        const int64_t pixel = area.First(1) + of + above * g.row_step + left * g.column_step;
        fact = make_float2(__ldg(log_sum + pixel), __ldg(deltas + pixel));
      }
    });
    uint32_t next_k[S::kChunks][2], next_v[S::kChunks][2];
    const auto load = [&](int number) {
      const Patch<S> patch(g, area, lane, number);
      patch.Load(key + at_part, g.parts, there && g.has_key, next_k);
      patch.Load(value + at_part, g.parts, there, next_v);
    };
    load(first_patch);
    each_fact([&](const float2& fact, int of, int y, int x) {
      facts[of * kSide * kStride + y * kStride + x] = make_float2(fact.x * kLog2E, -fact.y);
    });
    WaitForCopies();
    __syncthreads();
    for (int number = first_patch; number < 4 && there; number += S::kPatchStep) {
      const Patch<S> patch(g, area, lane, number);
      uint32_t k[S::kChunks][2], v[S::kChunks][2];
      Assign(k, next_k);
      Assign(v, next_v);
      if (number + S::kPatchStep < 4) load(number + S::kPatchStep);
      if (!patch.Live(area)) continue;
      const uint32_t base = head * S::kChunks * kPlane + patch.Corner() * 16;
      for (int pixel = lane.number; pixel < kSlots; pixel += kWarp) {
        own[pixel] = pixel < kCovered
                         ? facts[head * kSide * kStride + patch.Corner() + Region(pixel)]
                         : make_float2(kAbsent, 0.f);
      }
      __syncwarp();
      float dk[S::kChunks][4] = {}, dv[S::kChunks][4] = {};
      Pixels<S, false> q, up;
      Pixels<S, true> qt, upt;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        q.Load(queries + base, offsets, step);
        up.Load(upstreams + base, offsets, step);
        // The terms of these queries, each for the rows and columns of the patch.
        QueryTerms<S>(q.now, table_fragments, lane, terms);
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
        upt.Load(upstreams + base, offsets, step);
        Gather<S>(weights, upt, dv);
        qt.Load(queries + base, offsets, step);
        Gather<S>(slopes, qt, dk);
        __syncwarp();
      }
      if (g.has_key) {
        patch.Store(dk, g.scale, g.scale, key_gradient + at_part, g.parts);
      }
      patch.Store(dv, 1.f, 1.f, value_gradient + at_part, g.parts);
      __syncwarp();
    }
  }
}

template <typename S>
TileGrid PlanTiles(const Problem& p) {
  TileGrid g = {};
  g.height = p.height;
  g.width = p.width;
  g.heads = p.heads;
  g.row_dilation = p.dilation_rows;
  g.column_dilation = p.dilation_columns;
  g.mask_border = p.mask_border;
  g.has_key = p.has_key;
  g.has_relative = p.has_relative;
  g.scale = p.scale;
  g.parts = p.parts;
  g.row_step = g.width * g.heads * g.row_dilation;
  g.column_step = g.heads * g.column_dilation;
  g.head_blocks = Divisor(CeilDiv(g.heads, S::kHeads));
  g.tiles_x = Divisor(CeilDiv(CeilDiv(g.width, g.column_dilation), kTile));
  g.tiles_y = Divisor(CeilDiv(CeilDiv(g.height, g.row_dilation), kTile));
  g.row_phases = Divisor(g.row_dilation);
  g.column_phases = Divisor(g.column_dilation);
  g.tiles = static_cast<int>(p.batch) * g.row_dilation * g.column_dilation * g.tiles_y.by *
            g.tiles_x.by * g.head_blocks.by;
  return g;
}

template <typename S>
void LaunchForward(const Problem& p, const ForwardArrays& a, cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles<S>(p);
  constexpr int kBytes = Memory<S>::kForward;
  const int workers = Workers(Forward<S>, g.tiles, S::kThreads, kBytes, g.tiles);
  Forward<S><<<workers, S::kThreads, kBytes, stream>>>(
      g, static_cast<const T*>(a.query), static_cast<const T*>(a.key),
      static_cast<const T*>(a.value), a.rows, a.columns, static_cast<T*>(a.output), a.log_sum);
}

template <typename S>
void LaunchQueryBackward(const Problem& p, const BackwardArrays& a, cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles<S>(p);
  constexpr int kBytes = Memory<S>::kQuery;
  const int workers = Workers(QueryBackward<S>, g.tiles, S::kThreads, kBytes, kTableWorkers);
  QueryBackward<S><<<workers, S::kThreads, kBytes, stream>>>(
      g, static_cast<const T*>(a.query), static_cast<const T*>(a.key),
      static_cast<const T*>(a.value), a.rows, a.columns, static_cast<const T*>(a.output), a.log_sum,
      static_cast<const T*>(a.upstream), static_cast<T*>(a.query_gradient), a.scratch,
      TablePartials(p, a));
  if (p.has_relative) SumTables(p, a, workers, g.scale, stream);
}

template <typename S>
void LaunchKeyBackward(const Problem& p, const BackwardArrays& a, cudaStream_t stream) {
  using T = typename S::T;
  const TileGrid g = PlanTiles<S>(p);
  constexpr int kBytes = Memory<S>::kKey;
  const int workers = Workers(KeyBackward<S>, g.tiles, S::kThreads, kBytes, g.tiles);
  KeyBackward<S><<<workers, S::kThreads, kBytes, stream>>>(
      g, static_cast<const T*>(a.query), static_cast<const T*>(a.key),
      static_cast<const T*>(a.value), a.rows, a.columns, a.log_sum,
      static_cast<const T*>(a.upstream), a.scratch, static_cast<T*>(a.key_gradient),
      static_cast<T*>(a.value_gradient));
}

// Calls `launch` with the head's type and width.
template <typename Launch>
void WithHead(const Problem& p, Launch launch) {
  auto with_type = [&](auto zero) {
    using T = decltype(zero);
    if (p.depth == 8) launch(Head<T, 8>());
    if (p.depth == 16) launch(Head<T, 16>());
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
  const bool width = p.depth == 8 || p.depth == 16 || p.depth == 32 || p.depth == 64;
  // A smaller scale would let through what kNever is to keep out.
  return width && p.type != Type::kFloat32 && p.kernel_rows == kKernel &&
         p.kernel_columns == kKernel && p.scale >= 0.01f;
}

void TilesForward(const Problem& p, const ForwardArrays& arrays, cudaStream_t stream) {
  WithHead(p, [&](auto head) { LaunchForward<decltype(head)>(p, arrays, stream); });
}

void TilesBackward(const Problem& p, const BackwardArrays& arrays, cudaStream_t stream) {
  WithHead(p, [&](auto head) {
    LaunchQueryBackward<decltype(head)>(p, arrays, stream);
    LaunchKeyBackward<decltype(head)>(p, arrays, stream);
  });
}

}  // namespace sasa
