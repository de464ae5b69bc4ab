#include "cpu/attention.h"

#include <algorithm>
#include <vector>

#include "cpu/avg_pool.h"
#include "limits.h"

namespace sasa {
namespace {

constexpr int64_t kQueryBlock = 128;    // queries that are processed together
constexpr int64_t kForwardBands = 64;   // minimum for many threads and few images
constexpr int64_t kBackwardBands = 16;  // fewer, because neighboring bands overlap

LocalAttentionProblem WithoutPooling(LocalAttentionProblem problem) {
  problem.pool_size = 1;
  return problem;
}

// An odd number of cache lines, so that the channels of a pixel are in different cache sets.
int64_t PadPlane(int64_t floats) { return (RoundUp(floats, 16) / 16 | 1) * 16; }

// Divides the images into bands of equal height: `wanted` in total, if that leaves at least
// `min_rows` rows in each.
void DivideIntoBands(Plan& plan, int64_t wanted, int64_t min_rows) {
  const LocalAttentionProblem& p = plan.problem;
  const int64_t images = std::max<int64_t>(p.batch * p.heads, 1);
  const int64_t bands = std::clamp<int64_t>((wanted + images - 1) / images, 1,
                                            std::max<int64_t>(p.height / min_rows, 1));
  plan.band_rows = std::max<int64_t>((p.height + bands - 1) / bands, 1);
  plan.bands_per_head = (p.height + plan.band_rows - 1) / plan.band_rows;
  plan.num_bands = p.width > 0 ? p.batch * p.heads * plan.bands_per_head : 0;
  plan.workers = std::min(plan.num_bands, kTableWorkers);
}

Plan BasePlan(const LocalAttentionProblem& p, int64_t lanes) {
  Plan plan = {};
  plan.problem = p;
  plan.lanes = lanes;
  plan.padded_head_dim = RoundUp(p.head_dim, 4);
  plan.window_size = int64_t{p.kernel_rows} * p.kernel_columns;
  plan.radius_rows = int64_t{p.kernel_rows / 2} * p.dilation_rows;
  plan.radius_columns = int64_t{p.kernel_columns / 2} * p.dilation_columns;
  plan.row_stride = p.width + plan.radius_columns;
  plan.leading_zeros = RoundUp(plan.radius_columns, lanes);
  plan.table_floats = p.has_relative ? (p.kernel_rows + p.kernel_columns) * (p.head_dim / 2) : 0;
  return plan;
}

void SetStrides(Plan& plan, int64_t halo_rows) {
  const int64_t queries = RoundUp(plan.band_rows * plan.row_stride, plan.lanes);
  plan.halo_rows = halo_rows;
  plan.query_block = std::min(kQueryBlock, queries);
  plan.plane_stride =
      PadPlane(plan.leading_zeros + (plan.band_rows + 2 * halo_rows) * plan.row_stride +
               plan.radius_columns + plan.query_block + 2 * plan.lanes);
}

}  // namespace

Plan ForwardPlan(const LocalAttentionProblem& problem, int64_t lanes) {
  Plan plan = BasePlan(problem, lanes);
  DivideIntoBands(plan, kForwardBands, std::max<int64_t>(8, plan.radius_rows));
  SetStrides(plan, plan.radius_rows);
  plan.query_plane_stride = PadPlane(plan.query_block);
  const int64_t floats = 2 * plan.padded_head_dim * plan.plane_stride  // keys, values
                         + (problem.mask_border ? plan.plane_stride : 0) +
                         2 * plan.padded_head_dim * plan.query_plane_stride  // queries, outputs
                         + plan.query_plane_stride                           // log-sum-exp
                         + plan.window_size * lanes                          // P
                         + problem.width * plan.padded_head_dim;             // a row being loaded
  plan.scratch_bytes = floats * sizeof(float) + 16 * kAlignment;
  return plan;
}

Plan BackwardPlan(const LocalAttentionProblem& problem, int64_t lanes) {
  Plan plan = BasePlan(problem, lanes);
  DivideIntoBands(plan, kBackwardBands, std::max<int64_t>(8, 6 * plan.radius_rows));
  // Queries in the halo attend to keys of the band, and their softmax needs keys beyond the halo.
  SetStrides(plan, plan.bands_per_head > 1 ? 2 * plan.radius_rows : plan.radius_rows);
  plan.margin = RoundUp(2 * plan.radius_columns + lanes, lanes);
  plan.query_plane_stride = PadPlane(plan.query_block + 2 * plan.margin);
  const int64_t floats =
      4 * plan.padded_head_dim * plan.plane_stride  // keys, values, their gradients
      + (problem.mask_border ? plan.plane_stride : 0) +
      3 * plan.padded_head_dim * plan.query_plane_stride  // queries, d_output, d_query
      + plan.query_plane_stride                           // log-sum-exp
      + 2 * plan.window_size * plan.query_plane_stride    // P and dS
      + plan.table_floats * lanes                         // d_tables
      + problem.width * plan.padded_head_dim;             // a row being loaded
  plan.scratch_bytes = floats * sizeof(float) + 16 * kAlignment;
  return plan;
}

const char* CpuForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                       const ParallelFor& parallel_for) {
  if (const char* reason = UnsupportedReason(problem, Platform::kCpu)) return reason;
  if (problem.pool_size != 1) {
    ForwardArrays without_pooling = arrays;
    std::vector<char> output;
    if (arrays.output == nullptr) {
      output.resize(problem.batch * problem.height * problem.width * problem.heads *
                    problem.head_dim * (problem.type == DType::kFloat32 ? 4 : 2));
      without_pooling.output = output.data();
    }
    const char* error = CpuForward(WithoutPooling(problem), without_pooling, parallel_for);
    if (error == nullptr) AvgPoolOutput(problem, without_pooling.output, arrays.pooled_output);
    return error;
  }
  const IsaVariant& variant = ActiveIsaVariant();
  const Plan plan = ForwardPlan(problem, variant.lanes);
  return RunWorkers(parallel_for, plan.workers, plan.scratch_bytes,
                    [&](int64_t worker, float* scratch) {
                      variant.attention.forward(plan, arrays, worker, scratch);
                    });
}

const char* CpuBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                        const ParallelFor& parallel_for) {
  if (const char* reason = UnsupportedReason(problem, Platform::kCpu)) return reason;
  if (problem.pool_size != 1) {
    const std::vector<char> d_output = AvgPoolGradient(problem, arrays.d_output);
    BackwardArrays without_pooling = arrays;
    without_pooling.d_output = d_output.data();
    return CpuBackward(WithoutPooling(problem), without_pooling, parallel_for);
  }
  const IsaVariant& variant = ActiveIsaVariant();
  const Plan plan = BackwardPlan(problem, variant.lanes);
  const char* error = RunWorkers(
      parallel_for, plan.workers, plan.scratch_bytes, [&](int64_t worker, float* scratch) {
        variant.attention.backward(plan, arrays, worker, scratch,
                                   arrays.workspace + worker * plan.table_floats);
      });
  if (problem.has_relative) {
    const int64_t half = problem.head_dim / 2, rows = problem.kernel_rows * half;
    for (int64_t i = 0; i < plan.table_floats; ++i) {
      float sum = 0;
      for (int64_t worker = 0; worker < plan.workers; ++worker) {
        sum += arrays.workspace[worker * plan.table_floats + i];
      }
      (i < rows ? arrays.d_relative_rows[i] : arrays.d_relative_columns[i - rows]) = sum;
    }
  }
  return error;
}

}  // namespace sasa
