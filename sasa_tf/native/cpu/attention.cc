#include "cpu/attention.h"

#include <algorithm>
#include <vector>

#include "cpu/avg_pool.h"
#include "limits.h"

namespace sasa {
namespace {

constexpr int64_t kBlock = 128;          // queries that are worked on together
constexpr int64_t kForwardPieces = 64;   // for as many threads, where images are few
constexpr int64_t kBackwardPieces = 16;  // fewer, as neighbouring pieces compute the same

// The same without means.
LocalAttentionProblem OfOutputs(LocalAttentionProblem problem) {
  problem.pool_size = 1;
  return problem;
}

// An odd number of cache lines, so that the channels of a pixel do not fall into the same set.
int64_t Plane(int64_t floats) { return (RoundUp(floats, 16) / 16 | 1) * 16; }

// Bands of equal height: as many as make `wanted` pieces, each at least `least` rows high.
void CutIntoBands(Plan& plan, int64_t wanted, int64_t least) {
  const LocalAttentionProblem& p = plan.problem;
  const int64_t images = std::max<int64_t>(p.batch * p.heads, 1);
  const int64_t bands = std::clamp<int64_t>((wanted + images - 1) / images, 1,
                                            std::max<int64_t>(p.height / least, 1));
  plan.band_rows = std::max<int64_t>((p.height + bands - 1) / bands, 1);
  plan.bands = (p.height + plan.band_rows - 1) / plan.band_rows;
  plan.pieces = p.width > 0 ? p.batch * p.heads * plan.bands : 0;
  plan.workers = std::min(plan.pieces, kTableWorkers);
}

Plan CommonPlan(const LocalAttentionProblem& p, int64_t lanes) {
  Plan plan = {};
  plan.problem = p;
  plan.lanes = lanes;
  plan.depth = RoundUp(p.head_dim, 4);
  plan.window = int64_t{p.kernel_rows} * p.kernel_columns;
  plan.reach_rows = int64_t{p.kernel_rows / 2} * p.dilation_rows;
  plan.reach_columns = int64_t{p.kernel_columns / 2} * p.dilation_columns;
  plan.row = p.width + plan.reach_columns;
  plan.lead = RoundUp(plan.reach_columns, lanes);
  plan.table_size = p.has_relative ? (p.kernel_rows + p.kernel_columns) * (p.head_dim / 2) : 0;
  return plan;
}

void Finish(Plan& plan, int64_t halo_rows) {
  const int64_t queries = RoundUp(plan.band_rows * plan.row, plan.lanes);
  plan.halo_rows = halo_rows;
  plan.block = std::min(kBlock, queries);
  plan.plane = Plane(plan.lead + (plan.band_rows + 2 * halo_rows) * plan.row + plan.reach_columns +
                     plan.block + 2 * plan.lanes);
}

}  // namespace

Plan ForwardPlan(const LocalAttentionProblem& problem, int64_t lanes) {
  Plan plan = CommonPlan(problem, lanes);
  CutIntoBands(plan, kForwardPieces, std::max<int64_t>(8, plan.reach_rows));
  Finish(plan, plan.reach_rows);
  plan.block_plane = Plane(plan.block);
  const int64_t floats = 2 * plan.depth * plan.plane  // keys, values
                         + (problem.mask_border ? plan.plane : 0) +
                         2 * plan.depth * plan.block_plane  // queries, outputs
                         + plan.block_plane                 // log-sum-exp
                         + plan.window * lanes              // weights
                         + problem.width * plan.depth;      // a row on its way
  plan.scratch_bytes = floats * sizeof(float) + 16 * kAlignment;
  return plan;
}

Plan BackwardPlan(const LocalAttentionProblem& problem, int64_t lanes) {
  Plan plan = CommonPlan(problem, lanes);
  CutIntoBands(plan, kBackwardPieces, std::max<int64_t>(8, 6 * plan.reach_rows));
  // Queries around the band see keys of it, and their softmax more keys around.
  Finish(plan, plan.bands > 1 ? 2 * plan.reach_rows : plan.reach_rows);
  plan.margin = RoundUp(2 * plan.reach_columns + lanes, lanes);
  plan.block_plane = Plane(plan.block + 2 * plan.margin);
  const int64_t floats = 4 * plan.depth * plan.plane  // keys, values, their gradients
                         + (problem.mask_border ? plan.plane : 0) +
                         3 * plan.depth * plan.block_plane  // queries, upstream, queries' gradient
                         + plan.block_plane                 // log-sum-exp
                         + 2 * plan.window * plan.block_plane  // weights and logits' gradients
                         + plan.table_size * lanes             // gradients of the tables
                         + problem.width * plan.depth;         // a row on its way
  plan.scratch_bytes = floats * sizeof(float) + 16 * kAlignment;
  return plan;
}

const char* CpuForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                       const ParallelFor& tasks) {
  if (const char* reason = UnsupportedReason(problem, Platform::kCpu)) return reason;
  if (problem.pool_size != 1) {
    const char* error = CpuForward(OfOutputs(problem), arrays, tasks);
    if (error == nullptr) WriteMeans(problem, arrays.output, arrays.pooled_output);
    return error;
  }
  const CpuVariant& variant = ChosenCpuVariant();
  const Plan plan = ForwardPlan(problem, variant.lanes);
  return RunWorkers(tasks, plan.workers, plan.scratch_bytes, [&](int64_t worker, float* scratch) {
    variant.attention.forward(plan, arrays, worker, scratch);
  });
}

const char* CpuBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                        const ParallelFor& tasks) {
  if (const char* reason = UnsupportedReason(problem, Platform::kCpu)) return reason;
  if (problem.pool_size != 1) {
    const std::vector<char> upstream = GradientOfOutputs(problem, arrays.d_output);
    BackwardArrays of_outputs = arrays;
    of_outputs.d_output = upstream.data();
    return CpuBackward(OfOutputs(problem), of_outputs, tasks);
  }
  const CpuVariant& variant = ChosenCpuVariant();
  const Plan plan = BackwardPlan(problem, variant.lanes);
  const char* error =
      RunWorkers(tasks, plan.workers, plan.scratch_bytes, [&](int64_t worker, float* scratch) {
        variant.attention.backward(plan, arrays, worker, scratch,
                                   arrays.workspace + worker * plan.table_size);
      });
  if (problem.has_relative) {
    const int64_t half = problem.head_dim / 2, rows = problem.kernel_rows * half;
    for (int64_t i = 0; i < plan.table_size; ++i) {
      float sum = 0;
      for (int64_t worker = 0; worker < plan.workers; ++worker) {
        sum += arrays.workspace[worker * plan.table_size + i];
      }
      (i < rows ? arrays.d_relative_rows[i] : arrays.d_relative_columns[i - rows]) = sum;
    }
  }
  return error;
}

}  // namespace sasa
