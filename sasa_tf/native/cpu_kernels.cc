// The processor's kernels; compiled once for each instruction set, with SASA_VARIANT (the namespace)
// and SASA_LANES (floats in a vector) defined. Nothing of the standard library that would become a
// shared inline function: the linker keeps one of several, perhaps one that this processor cannot run.
#include "cpu_attention.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

constexpr int64_t kLanes = SASA_LANES;
constexpr int kMaximalKernel = 11;

typedef float Vector __attribute__((vector_size(4 * SASA_LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * SASA_LANES)));
typedef float Unaligned __attribute__((vector_size(4 * SASA_LANES), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourIndices __attribute__((vector_size(16)));
typedef float UnalignedFour __attribute__((vector_size(16), aligned(4), may_alias));

inline Vector Load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
inline void Store(float* p, Vector v) { *reinterpret_cast<Unaligned*>(p) = v; }
inline Vector Broadcast(float x) { return x - Vector{}; }
inline Vector Max(Vector a, Vector b) { return a > b ? a : b; }

// log(x) to 2 ulp for normal x.
inline Vector Log(Vector x) {
  const Integers bits = reinterpret_cast<Integers>(x);
  // The exponent such that sqrt(1/2) <= x / 2^exponent < sqrt(2).
  const Integers exponent = (bits - 0x3f3504f3) >> 23;
  const Vector r = reinterpret_cast<Vector>(bits - (exponent << 23)) - 1.0f;
  const Vector n = __builtin_convertvector(exponent, Vector);
  Vector y = Broadcast(7.0376836292e-2f);
  y = y * r - 1.1514610310e-1f;
  y = y * r + 1.1676998740e-1f;
  y = y * r - 1.2420140846e-1f;
  y = y * r + 1.4249322787e-1f;
  y = y * r - 1.6668057665e-1f;
  y = y * r + 2.0000714765e-1f;
  y = y * r - 2.4999993993e-1f;
  y = y * r + 3.3333331174e-1f;
  y = y * (r * r) * r - 0.5f * (r * r) + n * -2.12194440e-4f;
  return r + y + n * 0.693359375f;
}

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

inline void Scale(float* p, int64_t floats, float factor) {
  for (int64_t i = 0; i < floats; ++i) p[i] *= factor;
}

inline void Zero(float* p, int64_t floats) { __builtin_memset(p, 0, floats * sizeof(float)); }

inline float Sum(Vector v) {
  float sum = 0;
  for (int64_t i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

// exp(x) to 2 ulp for x up to 80; 0 below -87, where the result would no longer be a normal number.
inline Vector Exp(Vector x) {
  const Vector magic = Broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vector shifted = x * 1.44269504f + magic;
  const Vector n = shifted - magic;
  const Vector r = x - n * 0.693359375f - n * -2.12194440e-4f;  // |r| <= ln(2) / 2
  Vector y = Broadcast(1.9875691e-4f);
  y = y * r + 1.3981999e-3f;
  y = y * r + 8.3334519e-3f;
  y = y * r + 4.1665796e-2f;
  y = y * r + 1.6666666e-1f;
  y = y * r + 0.5f;
  y = y * (r * r) + r + 1.0f;
  const Integers power = reinterpret_cast<Integers>(y) + (reinterpret_cast<Integers>(shifted) << 23);
  return reinterpret_cast<Vector>(power & ~(x <= Broadcast(-87.0f)));
}

// Elements of the arrays, to and from float32.

struct Float32 {
  using Stored = float;
};

struct Bfloat16 {
  using Stored = uint16_t;

  static float Load(uint16_t bits) {
    const uint32_t wide = uint32_t{bits} << 16;
    float x;
    __builtin_memcpy(&x, &wide, 4);
    return x;
  }

  static uint16_t Round(float x) {
    uint32_t wide;
    __builtin_memcpy(&wide, &x, 4);
    const uint32_t even = wide + 0x7fff + ((wide >> 16) & 1);
    return x == x ? even >> 16 : 0x7fc0;
  }
};

struct Float16 {
  using Stored = uint16_t;

  static float Load(uint16_t bits) {
    const uint32_t exponent = bits & 0x7c00, sign = uint32_t(bits & 0x8000) << 16;
    const float subnormal = static_cast<float>(bits & 0x3ff) * 0x1p-24f;
    uint32_t wide;
    __builtin_memcpy(&wide, &subnormal, 4);
    if (exponent != 0) {
      wide = (uint32_t(bits & 0x7fff) << 13) + (exponent == 0x7c00 ? 224u << 23 : 112u << 23);
    }
    wide |= sign;
    float x;
    __builtin_memcpy(&x, &wide, 4);
    return x;
  }

  static uint16_t Round(float x) {
    uint32_t wide;
    __builtin_memcpy(&wide, &x, 4);
    const uint32_t sign = (wide >> 16) & 0x8000, magnitude = wide & 0x7fffffff;
    // Subnormal: the sum with 0.5 leaves the 10 bits at the end of the fraction, rounded to even.
    float small;
    __builtin_memcpy(&small, &magnitude, 4);
    small += 0.5f;
    uint32_t small_bits;
    __builtin_memcpy(&small_bits, &small, 4);
    const uint32_t subnormal = small_bits - 0x3f000000;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    const uint32_t half = magnitude > 0x7f800000   ? 0x7e00
                          : magnitude >= 0x477ff000 ? 0x7c00
                          : magnitude < 0x38800000 ? subnormal
                                                   : normal;
    return sign | half;
  }
};

#ifdef __clang__
#define SASA_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SASA_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, FourIndices{__VA_ARGS__})
#endif

inline void Transpose(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  const auto row = [&](int i) {
    return *reinterpret_cast<const UnalignedFour*>(from + i * from_stride);
  };
  const auto store = [&](int i, Four column) {
    *reinterpret_cast<UnalignedFour*>(to + i * to_stride) = column;
  };
  const Four low_01 = SASA_SHUFFLE(row(0), row(1), 0, 4, 1, 5);
  const Four low_23 = SASA_SHUFFLE(row(2), row(3), 0, 4, 1, 5);
  const Four high_01 = SASA_SHUFFLE(row(0), row(1), 2, 6, 3, 7);
  const Four high_23 = SASA_SHUFFLE(row(2), row(3), 2, 6, 3, 7);
  store(0, SASA_SHUFFLE(low_01, low_23, 0, 1, 4, 5));
  store(1, SASA_SHUFFLE(low_01, low_23, 2, 3, 6, 7));
  store(2, SASA_SHUFFLE(high_01, high_23, 0, 1, 4, 5));
  store(3, SASA_SHUFFLE(high_01, high_23, 2, 3, 6, 7));
}

// planes[d * plane + i] = pixels[i * stride + d].
inline void ToPlanes(const float* pixels, int64_t stride, int64_t count, int64_t channels,
                     float* planes, int64_t plane) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const float* from = pixels + i * stride;
    int64_t d = 0;
    for (; d + 4 <= channels; d += 4) Transpose(from + d, stride, planes + d * plane + i, plane);
    for (; d < channels; ++d) {
      for (int64_t j = 0; j < 4; ++j) planes[d * plane + i + j] = from[j * stride + d];
    }
  }
  for (; i < count; ++i) {
    for (int64_t d = 0; d < channels; ++d) planes[d * plane + i] = pixels[i * stride + d];
  }
}

// The way back.
inline void FromPlanes(const float* planes, int64_t plane, int64_t count, int64_t channels,
                       float* pixels, int64_t stride) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    float* to = pixels + i * stride;
    int64_t d = 0;
    for (; d + 4 <= channels; d += 4) Transpose(planes + d * plane + i, plane, to + d, stride);
    for (; d < channels; ++d) {
      for (int64_t j = 0; j < 4; ++j) to[j * stride + d] = planes[d * plane + i + j];
    }
  }
  for (; i < count; ++i) {
    for (int64_t d = 0; d < channels; ++d) pixels[i * stride + d] = planes[d * plane + i];
  }
}

template <typename From, typename To>
struct ConstLike {
  using type = To;
};
template <typename From, typename To>
struct ConstLike<const From, To> {
  using type = const To;
};
template <typename From, typename To>
using CopyConst = typename ConstLike<From, To>::type;

// `count` pixels in the layer's layout, `stride` elements apart, to planes of channels.
template <typename Type>
void LoadPixels(const typename Type::Stored* from, int64_t stride, int64_t count, int64_t depth,
                float* to, int64_t plane, float* row) {
  if constexpr (sizeof(*from) == 4) {
    ToPlanes(from, stride, count, depth, to, plane);
  } else {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t d = 0; d < depth; ++d) row[i * depth + d] = Type::Load(from[i * stride + d]);
    }
    ToPlanes(row, depth, count, depth, to, plane);
  }
}

template <typename Type>
void StorePixels(const float* from, int64_t plane, int64_t count, int64_t depth,
                 typename Type::Stored* to, int64_t stride, float* row) {
  if constexpr (sizeof(*to) == 4) {
    FromPlanes(from, plane, count, depth, to, stride);
  } else {
    FromPlanes(from, plane, count, depth, row, depth);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t d = 0; d < depth; ++d) to[i * stride + d] = Type::Round(row[i * depth + d]);
    }
  }
}

// A head of an image, and which of its rows a piece has.
struct Piece {
  int64_t image, head;
  int64_t begin, end;          // rows of queries
  int64_t keys_begin, keys_end;  // rows of keys that are in memory, those outside of the image too

  Piece(const Plan& plan, int64_t index) {
    // Pieces that run at once follow each other: of the same head, lest two processors write into
    // the same cache lines, as a pixel's heads share them.
    image = index % plan.problem.batch;
    const int64_t band = index / plan.problem.batch % plan.bands;
    head = index / plan.problem.batch / plan.bands;
    begin = band * plan.band_rows;
    end = Least(begin + plan.band_rows, plan.problem.height);
    keys_begin = begin - plan.halo_rows;
    keys_end = end + plan.halo_rows;
  }

  static int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
  static int64_t Most(int64_t a, int64_t b) { return a > b ? a : b; }
};

// Calls visit(element, flat, count) for each run of the image's pixels in [from, to) of the flat
// numbering whose 0 is the first pixel of row `first_row`: `element` counts pixels of the image.
template <typename Visit>
inline void EachRun(const Plan& plan, int64_t first_row, int64_t from, int64_t to, Visit visit) {
  const int64_t width = plan.problem.width, height = plan.problem.height;
  for (int64_t row = from / plan.row; row * plan.row < to; ++row) {
    const int64_t start = Piece::Most(from - row * plan.row, 0);
    const int64_t count = Piece::Least(to - row * plan.row, width) - start;
    const int64_t y = first_row + row;
    if (count > 0 && y >= 0 && y < height) visit(y * width + start, row * plan.row + start, count);
  }
}

// Reads and writes one head of one image as planes of channels.
struct Head {
  const Plan& plan;
  const Piece& piece;
  float* row;

  int64_t Pixels(int64_t pixel) const {
    return piece.image * plan.problem.height * plan.problem.width + pixel;
  }

  // Calls visit(type, array at the pixel, numbers from a pixel to the next) with the array's type.
  template <typename Array, typename Visit>
  void At(Array* array, int64_t parts, int64_t pixel, Visit visit) const {
    const int64_t stride = parts * plan.problem.heads * plan.problem.depth;
    const int64_t offset = Pixels(pixel) * stride + piece.head * plan.problem.depth;
    const auto call = [&](auto type) {
      using Stored = typename decltype(type)::Stored;
      visit(type, reinterpret_cast<CopyConst<Array, Stored>*>(array) + offset, stride);
    };
    switch (plan.problem.type) {
      case Type::kFloat32: return call(Float32());
      case Type::kBfloat16: return call(Bfloat16());
      case Type::kFloat16: return call(Float16());
    }
  }

  // planes[d * plane + flat - from]; what is no pixel becomes zero.
  void Load(const void* array, int64_t parts, int64_t first_row, int64_t from, int64_t to,
            float* planes, int64_t plane) const {
    for (int64_t d = 0; d < plan.depth; ++d) Zero(planes + d * plane, to - from);
    EachRun(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      At(array, parts, pixel, [&](auto type, const auto* pixels, int64_t stride) {
        LoadPixels<decltype(type)>(pixels, stride, count, plan.problem.depth,
                                   planes + flat - from, plane, row);
      });
    });
  }

  void Store(const float* planes, int64_t plane, int64_t first_row, int64_t from, int64_t to,
             void* array, int64_t parts) const {
    EachRun(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      At(array, parts, pixel, [&](auto type, auto* pixels, int64_t stride) {
        StorePixels<decltype(type)>(planes + flat - from, plane, count, plan.problem.depth, pixels,
                                    stride, row);
      });
    });
  }

  int64_t LogSumOffset(int64_t pixel) const {
    return Pixels(pixel) * plan.problem.heads + piece.head;
  }
};

// Cuts one allocation into aligned arrays.
class Scratch {
 public:
  explicit Scratch(float* memory) : next_(memory) {}

  float* Take(int64_t floats) {
    float* taken = next_;
    next_ += (floats + 15) / 16 * 16;
    return taken;
  }

 private:
  float* next_;
};

// All keys (or values) of a piece; `lead` zeros stand before the first pixel of the first row.
void LoadKeys(const Head& head, const void* array, float* keys) {
  const Plan& plan = head.plan;
  for (int64_t d = 0; d < plan.depth; ++d) Zero(keys + d * plan.plane, plan.lead);
  head.Load(array, plan.problem.parts, head.piece.keys_begin, 0, plan.plane - plan.lead,
            keys + plan.lead, plan.plane);
}

// What is added to the logits: nothing inside of the image, and outside what makes the weight zero.
inline void FillBorder(const Plan& plan, const Piece& piece, float* border) {
  for (int64_t i = 0; i < plan.plane; ++i) border[i] = -1e9f;
  EachRun(plan, piece.keys_begin, 0, plan.plane - plan.lead,
          [&](int64_t, int64_t flat, int64_t count) { Zero(border + plan.lead + flat, count); });
}

// Row and column terms of q.r for a vector of queries.
struct Terms {
  Vector rows[kMaximalKernel], columns[kMaximalKernel];
};

inline Vector TableProduct(const float* query, int64_t plane, const float* table, int64_t half) {
  Vector sum = {};
  for (int64_t d = 0; d < half; ++d) sum += Load(query + d * plane) * table[d];
  return sum;
}

inline Terms RelativeTerms(const Problem& p, const float* query, int64_t plane, const float* rows,
                           const float* columns) {
  Terms terms = {};
  if (p.has_relative) {
    const int64_t half = p.depth / 2;
    for (int64_t r = 0; r < p.kernel_rows; ++r) {
      terms.rows[r] = TableProduct(query, plane, rows + r * half, half);
    }
    for (int64_t c = 0; c < p.kernel_columns; ++c) {
      terms.columns[c] = TableProduct(query + half * plane, plane, columns + c * half, half);
    }
  }
  return terms;
}

// Adds the products of a vector of queries with one row of their windows.
template <int kColumns>
inline void RowProducts(const Plan& plan, const float* query, int64_t plane, const float* keys,
                        Vector* products) {
  Vector sums[kColumns];
  for (int c = 0; c < kColumns; ++c) sums[c] = products[c];
  for (int64_t d = 0; d < plan.depth; ++d) {
    const Vector q = Load(query + d * plane);
    for (int c = 0; c < kColumns; ++c) {
      sums[c] += q * Load(keys + d * plan.plane + c * plan.problem.dilation_columns);
    }
  }
  for (int c = 0; c < kColumns; ++c) products[c] = sums[c];
}

// sums[d] = all weights of the windows, times channel d of their keys; kChannels channels at once.
template <int kColumns, int kChannels>
inline void WeightedKeys(const Plan& plan, const float* weights, int64_t weights_plane,
                         const float* keys, Vector* sums) {
  for (int d = 0; d < kChannels; ++d) sums[d] = Vector{};
  for (int64_t r = 0; r < plan.problem.kernel_rows; ++r) {
    const float* row = keys + r * plan.problem.dilation_rows * plan.row;
    for (int c = 0; c < kColumns; ++c) {
      const Vector weight = Load(weights + (r * kColumns + c) * weights_plane);
      const float* key = row + c * plan.problem.dilation_columns;
      for (int d = 0; d < kChannels; ++d) sums[d] += weight * Load(key + d * plan.plane);
    }
  }
}

// Calls visit(channel, number) with numbers 8 and 4 as compile-time constants.
template <typename Visit>
inline void EachChannels(int64_t depth, Visit visit) {
  int64_t d = 0;
  for (; d + 8 <= depth; d += 8) visit(d, Constant<8>());
  if (d < depth) visit(d, Constant<4>());
}

template <int kColumns>
void ForwardPiece(const Plan& plan, const ForwardArrays& arrays, const Piece& piece,
                  float* memory) {
  const Problem& p = plan.problem;
  Scratch scratch(memory);
  float* keys = p.has_key ? scratch.Take(plan.depth * plan.plane) : nullptr;
  float* values = scratch.Take(plan.depth * plan.plane);
  float* border = p.mask_border ? scratch.Take(plan.plane) : nullptr;
  float* queries = scratch.Take(plan.depth * plan.block_plane);
  float* outputs = scratch.Take(plan.depth * plan.block_plane);
  float* log_sums = scratch.Take(plan.block_plane);
  float* weights = scratch.Take(plan.window * kLanes);
  const Head head{plan, piece, scratch.Take(p.width * plan.depth)};

  if (p.has_key) LoadKeys(head, arrays.key, keys);
  LoadKeys(head, arrays.value, values);
  if (p.mask_border) FillBorder(plan, piece, border);
  // From a query's number in the band to the first key of its window.
  const int64_t first = plan.lead + (plan.halo_rows - plan.reach_rows) * plan.row -
                        plan.reach_columns;
  const int64_t length = (piece.end - piece.begin) * plan.row;
  for (int64_t from = 0; from < length; from += plan.block) {
    const int64_t to = Piece::Least(from + plan.block, length);
    head.Load(arrays.query, p.parts, piece.begin, from, from + plan.block, queries,
              plan.block_plane);
    for (int64_t d = 0; d < plan.depth; ++d) Scale(queries + d * plan.block_plane, plan.block, p.scale);
    for (int64_t i = 0; i < to - from; i += kLanes) {
      const Terms terms =
          RelativeTerms(p, queries + i, plan.block_plane, arrays.rows, arrays.columns);
      Vector most = Broadcast(-3e38f);
      for (int64_t r = 0; r < p.kernel_rows; ++r) {
        const int64_t key = first + from + i + r * p.dilation_rows * plan.row;
        Vector logits[kColumns];
        for (int c = 0; c < kColumns; ++c) {
          logits[c] = terms.rows[r] + terms.columns[c];
          if (p.mask_border) logits[c] += Load(border + key + c * p.dilation_columns);
        }
        if (p.has_key) {
          RowProducts<kColumns>(plan, queries + i, plan.block_plane, keys + key, logits);
        }
        for (int c = 0; c < kColumns; ++c) {
          most = Max(most, logits[c]);
          Store(weights + (r * kColumns + c) * kLanes, logits[c]);
        }
      }
      Vector sum = {};
      for (int64_t w = 0; w < plan.window; ++w) {
        const Vector weight = Exp(Load(weights + w * kLanes) - most);
        sum += weight;
        Store(weights + w * kLanes, weight);
      }
      Store(log_sums + i, most + Log(sum));
      const Vector inverse = 1.0f / sum;
      EachChannels(plan.depth, [&](int64_t d, auto channels) {
        Vector sums[channels.value];
        WeightedKeys<kColumns, channels.value>(plan, weights, kLanes,
                                               values + d * plan.plane + first + from + i, sums);
        for (int j = 0; j < channels.value; ++j) {
          Store(outputs + (d + j) * plan.block_plane + i, sums[j] * inverse);
        }
      });
    }
    head.Store(outputs, plan.block_plane, piece.begin, from, to, arrays.output, 1);
    EachRun(plan, piece.begin, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      for (int64_t x = 0; x < count; ++x) {
        arrays.log_sum[head.LogSumOffset(pixel + x)] = log_sums[flat - from + x];
      }
    });
  }
}

// A block of queries of a backward piece: arrays of planes with zeros around them.
struct Block {
  float* queries;    // scaled
  float* upstream;
  float* query_gradients;
  float* log_sums;
  float* weights;    // [window][block_plane]
  float* gradients;  // of the logits, likewise
};

// Gradients of the relative tables, a vector for each number, from those of the logits.
inline void AddTableGradients(const Problem& p, const Block& block, int64_t plane, int64_t at,
                              const Terms& terms, float* tables) {
  const int64_t half = p.depth / 2;
  for (int64_t r = 0; r < p.kernel_rows; ++r) {
    for (int64_t d = 0; d < half; ++d, tables += kLanes) {
      Store(tables, Load(tables) + terms.rows[r] * Load(block.queries + d * plane + at));
    }
  }
  for (int64_t c = 0; c < p.kernel_columns; ++c) {
    for (int64_t d = half; d < 2 * half; ++d, tables += kLanes) {
      Store(tables, Load(tables) + terms.columns[c] * Load(block.queries + d * plane + at));
    }
  }
}

// The q.r part of the queries' gradient, for channel d.
inline Vector RelativeGradient(const Problem& p, const Terms& terms, const float* rows,
                               const float* columns, int64_t d) {
  const int64_t half = p.depth / 2;
  Vector sum = {};
  if (d < half) {
    for (int64_t r = 0; r < p.kernel_rows; ++r) sum += terms.rows[r] * rows[r * half + d];
  } else if (d < 2 * half) {
    for (int64_t c = 0; c < p.kernel_columns; ++c) {
      sum += terms.columns[c] * columns[c * half + d - half];
    }
  }
  return sum;
}

// From queries to keys: adds what a block of queries contributes, to the keys of one row of their
// windows. `keys` counts from the key that has the window's first column at the block's first query.
template <int kColumns, int kChannels>
inline void AddToKeys(const Plan& plan, const float* weights, const float* queries, int64_t from,
                      int64_t to, float* keys) {
  for (int64_t i = from; i < to; i += kLanes) {
    Vector sums[kChannels];
    for (int d = 0; d < kChannels; ++d) sums[d] = Load(keys + d * plan.plane + i);
    for (int c = 0; c < kColumns; ++c) {
      const int64_t query = i - c * plan.problem.dilation_columns;
      const Vector weight = Load(weights + c * plan.block_plane + query);
      for (int d = 0; d < kChannels; ++d) {
        sums[d] += weight * Load(queries + d * plan.block_plane + query);
      }
    }
    for (int d = 0; d < kChannels; ++d) Store(keys + d * plan.plane + i, sums[d]);
  }
}

template <int kColumns>
void BackwardPiece(const Plan& plan, const BackwardArrays& arrays, const Piece& piece,
                   float* memory, float* tables) {
  const Problem& p = plan.problem;
  Scratch scratch(memory);
  const auto planes = [&](bool needed) {
    return needed ? scratch.Take(plan.depth * plan.plane) : nullptr;
  };
  float* keys = planes(p.has_key);
  float* values = planes(true);
  float* key_gradients = planes(p.has_key);
  float* value_gradients = planes(true);
  float* border = p.mask_border ? scratch.Take(plan.plane) : nullptr;
  // Blocks are addressed from their first query, with the margin before it.
  const int64_t whole_block = plan.depth * plan.block_plane;
  const int64_t whole_window = plan.window * plan.block_plane;
  float* margins = scratch.Take(2 * whole_block + 2 * whole_window);
  Zero(margins, 2 * whole_block + 2 * whole_window);
  const Block block{margins + plan.margin,
                    margins + whole_block + plan.margin,
                    scratch.Take(whole_block),
                    scratch.Take(plan.block_plane),
                    margins + 2 * whole_block + plan.margin,
                    margins + 2 * whole_block + whole_window + plan.margin};
  const Head head{plan, piece, scratch.Take(p.width * plan.depth)};

  if (p.has_key) {
    LoadKeys(head, arrays.key, keys);
    Zero(key_gradients, plan.depth * plan.plane);
  }
  LoadKeys(head, arrays.value, values);
  Zero(value_gradients, plan.depth * plan.plane);
  if (p.mask_border) FillBorder(plan, piece, border);

  // Queries around the band attend to its keys too; these rows are worked on in up to three parts.
  const int64_t around = plan.halo_rows - plan.reach_rows;
  const int64_t first_row = piece.begin - around;
  const int64_t own_from = around * plan.row;
  const int64_t own_to = own_from + (piece.end - piece.begin) * plan.row;
  const int64_t first = plan.lead - plan.reach_columns;  // key, of query 0
  const int64_t own_keys = plan.lead + plan.halo_rows * plan.row;
  const int64_t own_keys_end = own_keys + (piece.end - piece.begin) * plan.row;
  for (int64_t from = 0, to; from < own_to + around * plan.row; from = to) {
    const bool own = from >= own_from && from < own_to;
    to = Piece::Least(from + plan.block,
                      own ? own_to : from < own_from ? own_from : own_to + around * plan.row);
    const auto load = [&](const void* array, int64_t parts, float* planes) {
      head.Load(array, parts, first_row, from, to, planes, plan.block_plane);
      for (int64_t d = 0; d < plan.depth; ++d) {
        Zero(planes + d * plan.block_plane + to - from, plan.block - (to - from));
      }
    };
    load(arrays.query, p.parts, block.queries);
    load(arrays.upstream, 1, block.upstream);
    for (int64_t d = 0; d < plan.depth; ++d) {
      Scale(block.queries + d * plan.block_plane, plan.block, p.scale);
    }
    Zero(block.log_sums, plan.block);
    EachRun(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      for (int64_t x = 0; x < count; ++x) {
        block.log_sums[flat - from + x] = arrays.log_sum[head.LogSumOffset(pixel + x)];
      }
    });

    for (int64_t i = 0; i < to - from; i += kLanes) {
      const Terms terms =
          RelativeTerms(p, block.queries + i, plan.block_plane, arrays.rows, arrays.columns);
      const Vector log_sum = Load(block.log_sums + i);
      Vector delta = {};  // sum of upstream times output, which may have been rounded
      for (int64_t r = 0; r < p.kernel_rows; ++r) {
        const int64_t key = first + from + i + r * p.dilation_rows * plan.row;
        Vector logits[kColumns], products[kColumns];
        for (int c = 0; c < kColumns; ++c) {
          logits[c] = terms.rows[r] + terms.columns[c];
          if (p.mask_border) logits[c] += Load(border + key + c * p.dilation_columns);
          products[c] = Vector{};
        }
        if (p.has_key) {
          RowProducts<kColumns>(plan, block.queries + i, plan.block_plane, keys + key, logits);
        }
        RowProducts<kColumns>(plan, block.upstream + i, plan.block_plane, values + key, products);
        for (int c = 0; c < kColumns; ++c) {
          const Vector weight = Exp(logits[c] - log_sum);
          delta += weight * products[c];
          Store(block.weights + (r * kColumns + c) * plan.block_plane + i, weight);
          Store(block.gradients + (r * kColumns + c) * plan.block_plane + i, products[c]);
        }
      }
      Terms gradients = {};
      for (int64_t r = 0; r < p.kernel_rows; ++r) {
        for (int c = 0; c < kColumns; ++c) {
          const int64_t at = (r * kColumns + c) * plan.block_plane + i;
          const Vector product = Load(block.gradients + at);
          const Vector gradient = Load(block.weights + at) * (product - delta);
          Store(block.gradients + at, gradient);
          gradients.rows[r] += gradient;
          gradients.columns[c] += gradient;
        }
      }
      if (own) {
        EachChannels(plan.depth, [&](int64_t d, auto channels) {
          Vector sums[channels.value] = {};
          if (p.has_key) {
            WeightedKeys<kColumns, channels.value>(plan, block.gradients + i, plan.block_plane,
                                                   keys + d * plan.plane + first + from + i, sums);
          }
          for (int j = 0; j < channels.value; ++j) {
            if (p.has_relative) {
              sums[j] += RelativeGradient(p, gradients, arrays.rows, arrays.columns, d + j);
            }
            Store(block.query_gradients + (d + j) * plan.block_plane + i, sums[j] * p.scale);
          }
        });
        if (p.has_relative) {
          AddTableGradients(p, block, plan.block_plane, i, gradients, tables);
        }
      }
    }
    if (own) {
      head.Store(block.query_gradients, plan.block_plane, first_row, from, to,
                 arrays.query_gradient, p.parts);
    }

    for (int64_t r = 0; r < p.kernel_rows; ++r) {
      const int64_t key = first + from + r * p.dilation_rows * plan.row;
      const int64_t begin = Piece::Most(0, own_keys - key);
      const int64_t end = Piece::Least(to - from + 2 * plan.reach_columns, own_keys_end - key);
      if (begin >= end) continue;
      EachChannels(plan.depth, [&](int64_t d, auto channels) {
        const auto add = [&](const float* weights, const float* queries, float* gradients) {
          AddToKeys<kColumns, channels.value>(
              plan, weights + r * kColumns * plan.block_plane, queries + d * plan.block_plane,
              begin, end, gradients + d * plan.plane + key);
        };
        add(block.weights, block.upstream, value_gradients);
        if (p.has_key) add(block.gradients, block.queries, key_gradients);
      });
    }
  }
  const auto store = [&](const float* planes, void* array) {
    head.Store(planes + own_keys, plan.plane, piece.begin, 0, own_keys_end - own_keys, array,
               p.parts);
  };
  store(value_gradients, arrays.value_gradient);
  if (p.has_key) store(key_gradients, arrays.key_gradient);
}

// All pieces of one worker. `run` is called with the number of columns as a compile-time constant.
template <typename Run>
void EachPiece(const Plan& plan, int64_t worker, Run run) {
  for (int64_t index = worker; index < plan.pieces; index += plan.workers) {
    const Piece piece(plan, index);
    switch (plan.problem.kernel_columns) {
      case 1: run(Constant<1>(), piece); break;
      case 3: run(Constant<3>(), piece); break;
      case 5: run(Constant<5>(), piece); break;
      case 7: run(Constant<7>(), piece); break;
      case 9: run(Constant<9>(), piece); break;
      case 11: run(Constant<11>(), piece); break;
    }
  }
}

void Forward(const Plan& plan, const ForwardArrays& arrays, int64_t worker, float* scratch) {
  EachPiece(plan, worker, [&](auto columns, const Piece& piece) {
    ForwardPiece<columns.value>(plan, arrays, piece, scratch);
  });
}

void Backward(const Plan& plan, const BackwardArrays& arrays, int64_t worker, float* scratch,
              float* tables) {
  // A vector for each number of the tables, summed at the end.
  const int64_t floats = plan.table_size * kLanes;
  Zero(scratch, floats);
  EachPiece(plan, worker, [&](auto columns, const Piece& piece) {
    BackwardPiece<columns.value>(plan, arrays, piece, scratch + (floats + 15) / 16 * 16, scratch);
  });
  for (int64_t i = 0; i < plan.table_size; ++i) tables[i] = Sum(Load(scratch + i * kLanes));
}

}  // namespace

const CpuKernels kernels = {kLanes, Forward, Backward};

}  // namespace SASA_VARIANT
}  // namespace sasa
