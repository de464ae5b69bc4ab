// The processor's kernels of attention inside of blocks; compiled as cpu/attention_kernels.cc is.
#include "cpu/stem_attention.h"
#include "cpu/simd.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

// Channels of the output whose sums stay in registers.
constexpr int64_t kTogether = kLanes == 16 ? 16 : 8;

// Calls visit(channel, number) with numbers kTogether, 4 and 1 as compile-time constants.
template <typename Visit>
inline void EachChannels(int64_t depth, Visit visit) {
  int64_t d = 0;
  for (; d + kTogether <= depth; d += kTogether) visit(d, Constant<kTogether>());
  for (; d + 4 <= depth; d += 4) visit(d, Constant<4>());
  for (; d < depth; ++d) visit(d, Constant<1>());
}

// The block at a row and column of blocks.
struct Block {
  const StemPlan& plan;
  int64_t image, top, left;  // of its first place, which may lie outside of the image

  bool Inside(int64_t row, int64_t column) const {
    const StemProblem& p = plan.problem;
    return top + row >= 0 && top + row < p.height && left + column >= 0 && left + column < p.width;
  }

  // Calls visit(place, pixel, count) for each row's part inside of the image; `pixel` counts from
  // the first of all images.
  template <typename Visit>
  void EachRun(Visit visit) const {
    const StemProblem& p = plan.problem;
    const int64_t from = left < 0 ? -left : 0;
    const int64_t end = p.width - left < p.block_columns ? p.width - left : p.block_columns;
    for (int64_t row = 0; row < p.block_rows; ++row) {
      const int64_t y = top + row;
      if (y < 0 || y >= p.height) continue;
      visit(row * p.block_columns + from, (image * p.height + y) * p.width + left + from,
            end - from);
    }
  }
};

// Calls visit(block) for each block of a worker.
template <typename Visit>
inline void EachBlock(const StemPlan& plan, int64_t worker, Visit visit) {
  for (int64_t row = worker; row < plan.rows; row += plan.workers) {
    for (int64_t column = 0; column < plan.wide; ++column) {
      visit(Block{plan, row / plan.high, row % plan.high * plan.problem.block_rows - plan.above,
                  column * plan.problem.block_columns - plan.left});
    }
  }
}

// A block's channels as planes of places, zeros outside of the image, and what keeps places outside
// of it from being attended to.
template <typename Type>
inline void LoadBlock(const Block& block, const void* array, float* planes, float* border) {
  const StemPlan& plan = block.plan;
  const int64_t channels = plan.problem.channels;
  const auto* pixels = static_cast<const typename Type::Stored*>(array);
  Zero(planes, channels * plan.plane);
  for (int64_t i = 0; i < plan.places; ++i) border[i] = -1e9f;
  block.EachRun([&](int64_t place, int64_t pixel, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      border[place + i] = 0;
      for (int64_t c = 0; c < channels; ++c) {
        planes[c * plan.plane + place + i] = Type::Load(pixels[(pixel + i) * channels + c]);
      }
    }
  });
}

// Sum_c x_c similarity[c][e] of a vector of queries, for each e.
template <int kChannels>
struct Queries {
  Vector x[kChannels], y[kChannels];

  Queries(const float* planes, int64_t plane, const float* similarity) {
    for (int c = 0; c < kChannels; ++c) x[c] = Load(planes + c * plane);
    for (int e = 0; e < kChannels; ++e) {
      y[e] = Vector{};
      for (int c = 0; c < kChannels; ++c) y[e] += x[c] * similarity[c * kChannels + e];
    }
  }
};

// Leaves the softmax's weights, not yet divided by their sum, and returns one through the sum.
template <int kChannels>
inline Vector Weights(const StemPlan& plan, const Queries<kChannels>& queries, const float* planes,
                      const float* border, float* weights) {
  Vector most = Broadcast(-3e38f);
  for (int64_t q = 0; q < plan.places; ++q) {
    Vector logit = Broadcast(border[q]);
    for (int e = 0; e < kChannels; ++e) logit += queries.y[e] * planes[e * plan.plane + q];
    Store(weights + q * kLanes, logit);
    most = Max(most, logit);
  }
  Vector sum = {};
  for (int64_t q = 0; q < plan.places; ++q) {
    const Vector weight = Exp(Load(weights + q * kLanes) - most);
    Store(weights + q * kLanes, weight);
    sum += weight;
  }
  return 1.0f / sum;
}

template <int kChannels, typename Type>
void ForwardBlocks(const StemPlan& plan, const StemForwardArrays& arrays, int64_t worker,
                   float* memory) {
  const StemProblem& p = plan.problem;
  const int64_t filters = p.heads * p.head_dim;
  Scratch scratch(memory);
  float* planes = scratch.Take(kChannels * plan.plane);
  float* border = scratch.Take(plan.plane);
  float* weights = scratch.Take(plan.places * kLanes);
  float* outputs = scratch.Take(filters * plan.plane);
  float* row = scratch.Take(plan.places * filters);
  auto* output = static_cast<typename Type::Stored*>(arrays.output);
  EachBlock(plan, worker, [&](const Block& block) {
    LoadBlock<Type>(block, arrays.pixels, planes, border);
    for (int64_t n = 0; n < p.heads; ++n) {
      const float* values = arrays.w_v + n * p.head_dim;
      for (int64_t at = 0; at < plan.plane; at += kLanes) {
        const Queries<kChannels> queries(planes + at, plan.plane,
                                         arrays.w_qk + n * kChannels * kChannels);
        const Vector inverse = Weights(plan, queries, planes, border, weights);
        EachChannels(p.head_dim, [&](int64_t d, auto together) {
          Vector sums[together.value] = {};
          for (int64_t q = 0; q < plan.places; ++q) {
            const Vector weight = Load(weights + q * kLanes) * inverse;
            for (int c = 0; c < kChannels; ++c) {
              const Vector weighted = weight * planes[c * plan.plane + q];
              const float* value = values + (q * kChannels + c) * filters + d;
              for (int j = 0; j < together.value; ++j) sums[j] += weighted * value[j];
            }
          }
          for (int j = 0; j < together.value; ++j) {
            Store(outputs + (n * p.head_dim + d + j) * plan.plane + at, sums[j]);
          }
        });
      }
    }
    block.EachRun([&](int64_t place, int64_t pixel, int64_t count) {
      StorePixels<Type>(outputs + place, plan.plane, count, filters, output + pixel * filters,
                        filters, row);
    });
  });
}

// Adds weighted pixels times upstream to a head's gradient of the values: [P C][D], the lanes are
// channels of the head.
inline void AddValueGradients(const StemPlan& plan, int64_t products, const float* weighted,
                              const float* upstream, float* table) {
  constexpr int64_t kRows = 8;
  const int64_t filters = plan.problem.heads * plan.problem.head_dim;
  for (int64_t d = 0; d < plan.problem.head_dim; d += kLanes) {
    int64_t place = 0;
    for (; place + kRows <= plan.places; place += kRows) {
      Vector rows[kRows];
      for (int j = 0; j < kRows; ++j) rows[j] = Load(upstream + (place + j) * filters + d);
      for (int64_t k = 0; k < products; ++k) {
        Vector even = Load(table + k * plan.table_row + d), odd = {};
        const float* factors = weighted + k * plan.plane + place;
        for (int j = 0; j < kRows; j += 2) {
          even += rows[j] * factors[j];
          odd += rows[j + 1] * factors[j + 1];
        }
        Store(table + k * plan.table_row + d, even + odd);
      }
    }
    for (; place < plan.places; ++place) {
      const Vector row = Load(upstream + place * filters + d);
      for (int64_t k = 0; k < products; ++k) {
        float* sum = table + k * plan.table_row + d;
        Store(sum, Load(sum) + row * weighted[k * plan.plane + place]);
      }
    }
  }
}

template <int kChannels, typename Type>
void BackwardBlocks(const StemPlan& plan, const StemBackwardArrays& arrays, int64_t worker,
                    float* memory, float* table) {
  const StemProblem& p = plan.problem;
  const int64_t filters = p.heads * p.head_dim, products = plan.places * kChannels;
  Scratch scratch(memory);
  float* planes = scratch.Take(kChannels * plan.plane);
  float* border = scratch.Take(plan.plane);
  float* weights = scratch.Take(plan.places * kLanes);
  float* slopes = scratch.Take(products * kLanes);  // gradients of the weighted pixels
  float* weighted = scratch.Take(products * plan.plane);
  float* rows = scratch.Take(plan.places * filters + kLanes);  // upstream, pixel by pixel
  float* channels = scratch.Take(filters * plan.plane);        // upstream, channel by channel
  const auto* upstream = static_cast<const typename Type::Stored*>(arrays.d_output);
  Zero(table, plan.table_size);
  Zero(rows, plan.places * filters + kLanes);
  Zero(channels, filters * plan.plane);
  float* similarity_table = table + p.heads * products * plan.table_row;
  EachBlock(plan, worker, [&](const Block& block) {
    LoadBlock<Type>(block, arrays.pixels, planes, border);
    if (!block.Inside(0, 0) || !block.Inside(p.block_rows - 1, p.block_columns - 1)) {
      Zero(rows, plan.places * filters);
    }
    block.EachRun([&](int64_t place, int64_t pixel, int64_t count) {
      for (int64_t i = 0; i < count * filters; ++i) {
        rows[place * filters + i] = Type::Load(upstream[pixel * filters + i]);
      }
    });
    ToPlanes(rows, filters, plan.places, filters, channels, plan.plane);
    for (int64_t n = 0; n < p.heads; ++n) {
      const float* values = arrays.w_v + n * p.head_dim;
      float* similarity = similarity_table + n * kChannels * kChannels * kLanes;
      for (int64_t at = 0; at < plan.plane; at += kLanes) {
        const Queries<kChannels> queries(planes + at, plan.plane,
                                         arrays.w_qk + n * kChannels * kChannels);
        const Vector inverse = Weights(plan, queries, planes, border, weights);
        for (int64_t k = 0; k < products; ++k) Store(slopes + k * kLanes, Vector{});
        EachChannels(p.head_dim, [&](int64_t d, auto together) {
          Vector up[together.value];
          for (int j = 0; j < together.value; ++j) {
            up[j] = Load(channels + (n * p.head_dim + d + j) * plan.plane + at);
          }
          for (int64_t k = 0; k < products; ++k) {
            const float* value = values + k * filters + d;
            Vector sum = Load(slopes + k * kLanes);
            for (int j = 0; j < together.value; ++j) sum += up[j] * value[j];
            Store(slopes + k * kLanes, sum);
          }
        });
        Vector delta = {};  // sum over the block of weights times their gradients
        for (int64_t q = 0; q < plan.places; ++q) {
          const Vector weight = Load(weights + q * kLanes) * inverse;
          Vector slope = {};
          for (int c = 0; c < kChannels; ++c) {
            const float x = planes[c * plan.plane + q];
            slope += Load(slopes + (q * kChannels + c) * kLanes) * x;
            Store(weighted + (q * kChannels + c) * plan.plane + at, weight * x);
          }
          Store(weights + q * kLanes, weight);
          Store(slopes + q * kLanes, slope);  // of the weight; those of its pixel are used up
          delta += weight * slope;
        }
        Vector sums[kChannels] = {};  // sum over the block of logits' gradients times pixels
        for (int64_t q = 0; q < plan.places; ++q) {
          const Vector slope = Load(weights + q * kLanes) * (Load(slopes + q * kLanes) - delta);
          for (int e = 0; e < kChannels; ++e) sums[e] += slope * planes[e * plan.plane + q];
        }
        for (int c = 0; c < kChannels; ++c) {
          for (int e = 0; e < kChannels; ++e) {
            float* sum = similarity + (c * kChannels + e) * kLanes;
            Store(sum, Load(sum) + queries.x[c] * sums[e]);
          }
        }
      }
      AddValueGradients(plan, products, weighted, rows + n * p.head_dim,
                        table + n * products * plan.table_row);
    }
  });
}

// Calls run(channels, type) with both known to the compiler.
template <typename Run>
void Specialized(const StemProblem& problem, Run run) {
  const auto with_type = [&](auto channels) {
    WithNumbers(problem.type, [&](auto type) { run(channels, type); });
  };
  switch (problem.channels) {
    case 1:
      return with_type(Constant<1>());
    case 2:
      return with_type(Constant<2>());
    case 3:
      return with_type(Constant<3>());
    case 4:
      return with_type(Constant<4>());
  }
}

void Forward(const StemPlan& plan, const StemForwardArrays& arrays, int64_t worker,
             float* scratch) {
  Specialized(plan.problem, [&](auto channels, auto type) {
    ForwardBlocks<channels.value, decltype(type)>(plan, arrays, worker, scratch);
  });
}

void Backward(const StemPlan& plan, const StemBackwardArrays& arrays, int64_t worker,
              float* scratch, float* table) {
  Specialized(plan.problem, [&](auto channels, auto type) {
    BackwardBlocks<channels.value, decltype(type)>(plan, arrays, worker, scratch, table);
  });
}

}  // namespace

const CpuStemKernels stem_kernels = {Forward, Backward};

}  // namespace SASA_VARIANT
}  // namespace sasa
