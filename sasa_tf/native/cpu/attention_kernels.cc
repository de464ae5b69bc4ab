// The processor's kernels; compiled once for each instruction set (see cpu/simd.h).
#include "cpu/attention.h"
#include "cpu/simd.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

constexpr int kMaximalKernel = 11;

// A head of an image, and which of its rows a piece has.
struct Piece {
  int64_t image, head;
  int64_t begin, end;            // rows of queries
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
    const int64_t stride = parts * plan.problem.heads * plan.problem.head_dim;
    const int64_t offset = Pixels(pixel) * stride + piece.head * plan.problem.head_dim;
    WithNumbers(plan.problem.type, [&](auto type) {
      using Stored = typename decltype(type)::Stored;
      visit(type, reinterpret_cast<CopyConst<Array, Stored>*>(array) + offset, stride);
    });
  }

  // planes[d * plane + flat - from]; what is no pixel becomes zero.
  void Load(const void* array, int64_t parts, int64_t first_row, int64_t from, int64_t to,
            float* planes, int64_t plane) const {
    for (int64_t d = 0; d < plan.depth; ++d) Zero(planes + d * plane, to - from);
    EachRun(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      At(array, parts, pixel, [&](auto type, const auto* pixels, int64_t stride) {
        LoadPixels<decltype(type)>(pixels, stride, count, plan.problem.head_dim,
                                   planes + flat - from, plane, row);
      });
    });
  }

  void Store(const float* planes, int64_t plane, int64_t first_row, int64_t from, int64_t to,
             void* array, int64_t parts) const {
    EachRun(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      At(array, parts, pixel, [&](auto type, auto* pixels, int64_t stride) {
        StorePixels<decltype(type)>(planes + flat - from, plane, count, plan.problem.head_dim,
                                    pixels, stride, row);
      });
    });
  }

  int64_t LogSumOffset(int64_t pixel) const {
    return Pixels(pixel) * plan.problem.heads + piece.head;
  }
};

// All keys (or values) of a piece; `lead` zeros stand before the first pixel of the first row.
void LoadKeys(const Head& head, const void* array, float* keys) {
  const Plan& plan = head.plan;
  for (int64_t d = 0; d < plan.depth; ++d) Zero(keys + d * plan.plane, plan.lead);
  head.Load(array, plan.problem.qkv_parts, head.piece.keys_begin, 0, plan.plane - plan.lead,
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

inline Terms RelativeTerms(const LocalAttentionProblem& p, const float* query, int64_t plane,
                           const float* rows, const float* columns) {
  Terms terms = {};
  if (p.has_relative) {
    const int64_t half = p.head_dim / 2;
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
  const LocalAttentionProblem& p = plan.problem;
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
  const int64_t first =
      plan.lead + (plan.halo_rows - plan.reach_rows) * plan.row - plan.reach_columns;
  const int64_t length = (piece.end - piece.begin) * plan.row;
  for (int64_t from = 0; from < length; from += plan.block) {
    const int64_t to = Piece::Least(from + plan.block, length);
    head.Load(arrays.query, p.qkv_parts, piece.begin, from, from + plan.block, queries,
              plan.block_plane);
    for (int64_t d = 0; d < plan.depth; ++d)
      Scale(queries + d * plan.block_plane, plan.block, p.scale);
    for (int64_t i = 0; i < to - from; i += kLanes) {
      const Terms terms = RelativeTerms(p, queries + i, plan.block_plane, arrays.relative_rows,
                                        arrays.relative_columns);
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
        arrays.lse[head.LogSumOffset(pixel + x)] = log_sums[flat - from + x];
      }
    });
  }
}

// A block of queries of a backward piece: arrays of planes with zeros around them.
struct Block {
  float* queries;  // scaled
  float* upstream;
  float* query_gradients;
  float* log_sums;
  float* weights;    // [window][block_plane]
  float* gradients;  // of the logits, likewise
};

// Gradients of the relative tables, a vector for each number, from those of the logits.
inline void AddTableGradients(const LocalAttentionProblem& p, const Block& block, int64_t plane,
                              int64_t at, const Terms& terms, float* tables) {
  const int64_t half = p.head_dim / 2;
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
inline Vector RelativeGradient(const LocalAttentionProblem& p, const Terms& terms,
                               const float* rows, const float* columns, int64_t d) {
  const int64_t half = p.head_dim / 2;
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
// windows. `keys` counts from the key that has the window's first column at the block's first
// query.
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
  const LocalAttentionProblem& p = plan.problem;
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
    to = Piece::Least(from + plan.block, own               ? own_to
                                         : from < own_from ? own_from
                                                           : own_to + around * plan.row);
    const auto load = [&](const void* array, int64_t parts, float* planes) {
      head.Load(array, parts, first_row, from, to, planes, plan.block_plane);
      for (int64_t d = 0; d < plan.depth; ++d) {
        Zero(planes + d * plan.block_plane + to - from, plan.block - (to - from));
      }
    };
    load(arrays.query, p.qkv_parts, block.queries);
    load(arrays.d_output, 1, block.upstream);
    for (int64_t d = 0; d < plan.depth; ++d) {
      Scale(block.queries + d * plan.block_plane, plan.block, p.scale);
    }
    Zero(block.log_sums, plan.block);
    EachRun(plan, first_row, from, to, [&](int64_t pixel, int64_t flat, int64_t count) {
      for (int64_t x = 0; x < count; ++x) {
        block.log_sums[flat - from + x] = arrays.lse[head.LogSumOffset(pixel + x)];
      }
    });

    for (int64_t i = 0; i < to - from; i += kLanes) {
      const Terms terms = RelativeTerms(p, block.queries + i, plan.block_plane,
                                        arrays.relative_rows, arrays.relative_columns);
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
              sums[j] += RelativeGradient(p, gradients, arrays.relative_rows,
                                          arrays.relative_columns, d + j);
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
      head.Store(block.query_gradients, plan.block_plane, first_row, from, to, arrays.d_query,
                 p.qkv_parts);
    }

    for (int64_t r = 0; r < p.kernel_rows; ++r) {
      const int64_t key = first + from + r * p.dilation_rows * plan.row;
      const int64_t begin = Piece::Most(0, own_keys - key);
      const int64_t end = Piece::Least(to - from + 2 * plan.reach_columns, own_keys_end - key);
      if (begin >= end) continue;
      EachChannels(plan.depth, [&](int64_t d, auto channels) {
        const auto add = [&](const float* weights, const float* queries, float* gradients) {
          AddToKeys<kColumns, channels.value>(plan, weights + r * kColumns * plan.block_plane,
                                              queries + d * plan.block_plane, begin, end,
                                              gradients + d * plan.plane + key);
        };
        add(block.weights, block.upstream, value_gradients);
        if (p.has_key) add(block.gradients, block.queries, key_gradients);
      });
    }
  }
  const auto store = [&](const float* planes, void* array) {
    head.Store(planes + own_keys, plan.plane, piece.begin, 0, own_keys_end - own_keys, array,
               p.qkv_parts);
  };
  store(value_gradients, arrays.d_value);
  if (p.has_key) store(key_gradients, arrays.d_key);
}

// All pieces of one worker. `run` is called with the number of columns as a compile-time constant.
template <typename Run>
void EachPiece(const Plan& plan, int64_t worker, Run run) {
  for (int64_t index = worker; index < plan.pieces; index += plan.workers) {
    const Piece piece(plan, index);
    switch (plan.problem.kernel_columns) {
      case 1:
        run(Constant<1>(), piece);
        break;
      case 3:
        run(Constant<3>(), piece);
        break;
      case 5:
        run(Constant<5>(), piece);
        break;
      case 7:
        run(Constant<7>(), piece);
        break;
      case 9:
        run(Constant<9>(), piece);
        break;
      case 11:
        run(Constant<11>(), piece);
        break;
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

const CpuKernels kernels = {Forward, Backward};

}  // namespace SASA_VARIANT
}  // namespace sasa
