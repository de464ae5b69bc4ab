// The CPU kernels of stem attention, compiled once for each instruction set (see cpu/simd.h).
#include "cpu/stem_attention.h"
#include "cpu/simd.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

// Channels of the output that are summed in registers at a time.
constexpr int64_t kChannelGroup = kLanes == 16 ? 16 : 8;

// Calls visit(first channel, count) for groups of channels. The counts kChannelGroup, 4 and 1 are
// compile-time constants.
template <typename Visit>
inline void ForEachChannelGroup(int64_t depth, Visit visit) {
  int64_t d = 0;
  for (; d + kChannelGroup <= depth; d += kChannelGroup) visit(d, IntConstant<kChannelGroup>());
  for (; d + 4 <= depth; d += 4) visit(d, IntConstant<4>());
  for (; d < depth; ++d) visit(d, IntConstant<1>());
}

// A block of pixels.
struct Block {
  const StemPlan& plan;
  int64_t image, top, left;  // first row and column; may be outside the image

  bool Inside(int64_t row, int64_t column) const {
    const StemProblem& p = plan.problem;
    return top + row >= 0 && top + row < p.height && left + column >= 0 && left + column < p.width;
  }

  // Calls visit(position, pixel, count) for the part of each row inside the image; `pixel` is an
  // index in the batch.
  template <typename Visit>
  void ForEachRowSegment(Visit visit) const {
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
inline void ForEachBlock(const StemPlan& plan, int64_t worker, Visit visit) {
  for (int64_t row = worker; row < plan.total_block_rows; row += plan.workers) {
    for (int64_t column = 0; column < plan.grid_columns; ++column) {
      visit(Block{plan, row / plan.grid_rows,
                  row % plan.grid_rows * plan.problem.block_rows - plan.pad_top,
                  column * plan.problem.block_columns - plan.pad_left});
    }
  }
}

// Loads a block as one plane of positions per channel, with zeros outside the image, and the mask,
// which is added to the logits of the keys.
template <typename Element>
inline void LoadBlock(const Block& block, const void* array, float* planes, float* mask) {
  const StemPlan& plan = block.plan;
  const int64_t channels = plan.problem.channels;
  const auto* pixels = static_cast<const typename Element::Stored*>(array);
  Zero(planes, channels * plan.plane_stride);
  for (int64_t i = 0; i < plan.positions; ++i) mask[i] = -1e9f;
  block.ForEachRowSegment([&](int64_t position, int64_t pixel, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      mask[position + i] = 0;
      for (int64_t c = 0; c < channels; ++c) {
        planes[c * plan.plane_stride + position + i] =
            Element::Load(pixels[(pixel + i) * channels + c]);
      }
    }
  });
}

// A vector of queries: their pixels x, and y = x^T w_qk.
template <int kChannels>
struct Queries {
  Vector x[kChannels], y[kChannels];

  Queries(const float* planes, int64_t plane, const float* w_qk) {
    for (int c = 0; c < kChannels; ++c) x[c] = Load(planes + c * plane);
    for (int e = 0; e < kChannels; ++e) {
      y[e] = Vector{};
      for (int c = 0; c < kChannels; ++c) y[e] += x[c] * w_qk[c * kChannels + e];
    }
  }
};

// Stores the unnormalized softmax probabilities of a vector of queries, as [key][lane], and
// returns the inverse of their sum.
template <int kChannels>
inline Vector UnnormalizedSoftmax(const StemPlan& plan, const Queries<kChannels>& queries,
                                  const float* planes, const float* mask, float* probabilities) {
  Vector max_logit = Broadcast(-3e38f);
  for (int64_t q = 0; q < plan.positions; ++q) {
    Vector logit = Broadcast(mask[q]);
    for (int e = 0; e < kChannels; ++e) logit += queries.y[e] * planes[e * plan.plane_stride + q];
    Store(probabilities + q * kLanes, logit);
    max_logit = Max(max_logit, logit);
  }
  Vector sum = {};
  for (int64_t q = 0; q < plan.positions; ++q) {
    const Vector weight = Exp(Load(probabilities + q * kLanes) - max_logit);
    Store(probabilities + q * kLanes, weight);
    sum += weight;
  }
  return 1.0f / sum;
}

template <int kChannels, typename Element>
void ForwardBlocks(const StemPlan& plan, const StemForwardArrays& arrays, int64_t worker,
                   float* memory) {
  const StemProblem& p = plan.problem;
  const int64_t filters = p.heads * p.head_dim;
  ScratchArena scratch(memory);
  float* planes = scratch.Allocate(kChannels * plan.plane_stride);
  float* mask = scratch.Allocate(plan.plane_stride);
  float* probabilities = scratch.Allocate(plan.positions * kLanes);
  float* outputs = scratch.Allocate(filters * plan.plane_stride);
  float* row = scratch.Allocate(plan.positions * filters);
  auto* output = static_cast<typename Element::Stored*>(arrays.output);
  ForEachBlock(plan, worker, [&](const Block& block) {
    LoadBlock<Element>(block, arrays.pixels, planes, mask);
    for (int64_t n = 0; n < p.heads; ++n) {
      const float* w_v = arrays.w_v + n * p.head_dim;
      for (int64_t at = 0; at < plan.plane_stride; at += kLanes) {
        const Queries<kChannels> queries(planes + at, plan.plane_stride,
                                         arrays.w_qk + n * kChannels * kChannels);
        const Vector inverse = UnnormalizedSoftmax(plan, queries, planes, mask, probabilities);
        ForEachChannelGroup(p.head_dim, [&](int64_t d, auto group) {
          Vector sums[group.value] = {};
          for (int64_t q = 0; q < plan.positions; ++q) {
            const Vector weight = Load(probabilities + q * kLanes) * inverse;
            for (int c = 0; c < kChannels; ++c) {
              const Vector weighted = weight * planes[c * plan.plane_stride + q];
              const float* value = w_v + (q * kChannels + c) * filters + d;
              for (int j = 0; j < group.value; ++j) sums[j] += weighted * value[j];
            }
          }
          for (int j = 0; j < group.value; ++j) {
            Store(outputs + (n * p.head_dim + d + j) * plan.plane_stride + at, sums[j]);
          }
        });
      }
    }
    block.ForEachRowSegment([&](int64_t position, int64_t pixel, int64_t count) {
      StorePixels<Element>(outputs + position, plan.plane_stride, count, filters,
                           output + pixel * filters, filters, row);
    });
  });
}

// Adds the rows_per_head of `weighted`, the probabilities times the pixels, and d_output to a
// head's d_w_v [P C][D]. The lanes are channels of the head.
inline void AccumulateValueGradients(const StemPlan& plan, int64_t rows_per_head,
                                     const float* weighted, const float* d_output, float* partial) {
  constexpr int64_t kRows = 8;
  const int64_t filters = plan.problem.heads * plan.problem.head_dim;
  for (int64_t d = 0; d < plan.problem.head_dim; d += kLanes) {
    int64_t position = 0;
    for (; position + kRows <= plan.positions; position += kRows) {
      Vector rows[kRows];
      for (int j = 0; j < kRows; ++j) rows[j] = Load(d_output + (position + j) * filters + d);
      for (int64_t k = 0; k < rows_per_head; ++k) {
        Vector even = Load(partial + k * plan.padded_head_dim + d), odd = {};
        const float* factors = weighted + k * plan.plane_stride + position;
        for (int j = 0; j < kRows; j += 2) {
          even += rows[j] * factors[j];
          odd += rows[j + 1] * factors[j + 1];
        }
        Store(partial + k * plan.padded_head_dim + d, even + odd);
      }
    }
    for (; position < plan.positions; ++position) {
      const Vector row = Load(d_output + position * filters + d);
      for (int64_t k = 0; k < rows_per_head; ++k) {
        float* sum = partial + k * plan.padded_head_dim + d;
        Store(sum, Load(sum) + row * weighted[k * plan.plane_stride + position]);
      }
    }
  }
}

template <int kChannels, typename Element>
void BackwardBlocks(const StemPlan& plan, const StemBackwardArrays& arrays, int64_t worker,
                    float* memory, float* partial) {
  const StemProblem& p = plan.problem;
  const int64_t filters = p.heads * p.head_dim, rows_per_head = plan.positions * kChannels;
  ScratchArena scratch(memory);
  float* planes = scratch.Allocate(kChannels * plan.plane_stride);
  float* mask = scratch.Allocate(plan.plane_stride);
  float* probabilities = scratch.Allocate(plan.positions * kLanes);
  float* dp =
      scratch.Allocate(rows_per_head * kLanes);  // gradients of the weighted pixels, then dP
  float* weighted = scratch.Allocate(rows_per_head * plan.plane_stride);
  float* rows = scratch.Allocate(plan.positions * filters + kLanes);  // d_output by pixel
  float* channels = scratch.Allocate(filters * plan.plane_stride);    // d_output by channel
  const auto* d_output = static_cast<const typename Element::Stored*>(arrays.d_output);
  Zero(partial, plan.partial_floats);
  Zero(rows, plan.positions * filters + kLanes);
  Zero(channels, filters * plan.plane_stride);
  float* d_w_qk_partial = partial + p.heads * rows_per_head * plan.padded_head_dim;
  ForEachBlock(plan, worker, [&](const Block& block) {
    LoadBlock<Element>(block, arrays.pixels, planes, mask);
    if (!block.Inside(0, 0) || !block.Inside(p.block_rows - 1, p.block_columns - 1)) {
      Zero(rows, plan.positions * filters);
    }
    block.ForEachRowSegment([&](int64_t position, int64_t pixel, int64_t count) {
      for (int64_t i = 0; i < count * filters; ++i) {
        rows[position * filters + i] = Element::Load(d_output[pixel * filters + i]);
      }
    });
    PixelsToPlanes(rows, filters, plan.positions, filters, channels, plan.plane_stride);
    for (int64_t n = 0; n < p.heads; ++n) {
      const float* w_v = arrays.w_v + n * p.head_dim;
      float* d_w_qk = d_w_qk_partial + n * kChannels * kChannels * kLanes;
      for (int64_t at = 0; at < plan.plane_stride; at += kLanes) {
        const Queries<kChannels> queries(planes + at, plan.plane_stride,
                                         arrays.w_qk + n * kChannels * kChannels);
        const Vector inverse = UnnormalizedSoftmax(plan, queries, planes, mask, probabilities);
        for (int64_t k = 0; k < rows_per_head; ++k) Store(dp + k * kLanes, Vector{});
        ForEachChannelGroup(p.head_dim, [&](int64_t d, auto group) {
          Vector d_out[group.value];
          for (int j = 0; j < group.value; ++j) {
            d_out[j] = Load(channels + (n * p.head_dim + d + j) * plan.plane_stride + at);
          }
          for (int64_t k = 0; k < rows_per_head; ++k) {
            const float* value = w_v + k * filters + d;
            Vector sum = Load(dp + k * kLanes);
            for (int j = 0; j < group.value; ++j) sum += d_out[j] * value[j];
            Store(dp + k * kLanes, sum);
          }
        });
        Vector delta = {};  // rowsum(P dP)
        for (int64_t q = 0; q < plan.positions; ++q) {
          const Vector weight = Load(probabilities + q * kLanes) * inverse;
          Vector sum = {};
          for (int c = 0; c < kChannels; ++c) {
            const float x = planes[c * plan.plane_stride + q];
            sum += Load(dp + (q * kChannels + c) * kLanes) * x;
            Store(weighted + (q * kChannels + c) * plan.plane_stride + at, weight * x);
          }
          Store(probabilities + q * kLanes, weight);
          Store(dp + q * kLanes, sum);  // overwrites gradients that are no longer needed
          delta += weight * sum;
        }
        Vector sums[kChannels] = {};  // dS times pixels
        for (int64_t q = 0; q < plan.positions; ++q) {
          const Vector ds = Load(probabilities + q * kLanes) * (Load(dp + q * kLanes) - delta);
          for (int e = 0; e < kChannels; ++e) sums[e] += ds * planes[e * plan.plane_stride + q];
        }
        for (int c = 0; c < kChannels; ++c) {
          for (int e = 0; e < kChannels; ++e) {
            float* sum = d_w_qk + (c * kChannels + e) * kLanes;
            Store(sum, Load(sum) + queries.x[c] * sums[e]);
          }
        }
      }
      AccumulateValueGradients(plan, rows_per_head, weighted, rows + n * p.head_dim,
                               partial + n * rows_per_head * plan.padded_head_dim);
    }
  });
}

// Calls run(channels, element type) with compile-time constants.
template <typename Run>
void Dispatch(const StemProblem& problem, Run run) {
  const auto with_type = [&](auto channels) {
    DispatchDType(problem.type, [&](auto type) { run(channels, type); });
  };
  switch (problem.channels) {
    case 1:
      return with_type(IntConstant<1>());
    case 2:
      return with_type(IntConstant<2>());
    case 3:
      return with_type(IntConstant<3>());
    case 4:
      return with_type(IntConstant<4>());
  }
}

void Forward(const StemPlan& plan, const StemForwardArrays& arrays, int64_t worker,
             float* scratch) {
  Dispatch(plan.problem, [&](auto channels, auto type) {
    ForwardBlocks<channels.value, decltype(type)>(plan, arrays, worker, scratch);
  });
}

void Backward(const StemPlan& plan, const StemBackwardArrays& arrays, int64_t worker,
              float* scratch, float* partial) {
  Dispatch(plan.problem, [&](auto channels, auto type) {
    BackwardBlocks<channels.value, decltype(type)>(plan, arrays, worker, scratch, partial);
  });
}

}  // namespace

const CpuStemKernels stem_kernels = {Forward, Backward};

}  // namespace SASA_VARIANT
}  // namespace sasa
