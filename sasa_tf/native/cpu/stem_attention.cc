#include "cpu/stem_attention.h"

#include <algorithm>

#include "limits.h"

namespace sasa {

StemPlan MakeStemPlan(const StemProblem& p, int64_t lanes) {
  StemPlan plan = {};
  plan.problem = p;
  plan.positions = p.block_rows * p.block_columns;
  plan.plane_stride = RoundUp(plan.positions, lanes);
  plan.grid_rows = (p.height + p.block_rows - 1) / p.block_rows;
  plan.grid_columns = (p.width + p.block_columns - 1) / p.block_columns;
  plan.pad_top = (plan.grid_rows * p.block_rows - p.height) / 2;
  plan.pad_left = (plan.grid_columns * p.block_columns - p.width) / 2;
  plan.total_block_rows = plan.grid_columns > 0 ? p.batch * plan.grid_rows : 0;
  plan.workers = std::min(plan.total_block_rows, kStemWorkers);
  plan.padded_head_dim = RoundUp(p.head_dim, lanes);
  plan.partial_floats = p.heads * (plan.positions * p.channels * plan.padded_head_dim +
                                   p.channels * p.channels * lanes);
  const int64_t filters = p.heads * p.head_dim, rows = plan.positions * p.channels;
  const int64_t floats = (p.channels + 1) * plan.plane_stride  // pixels, mask
                         + (plan.positions + rows) * lanes     // P, dP
                         + rows * plan.plane_stride            // weighted pixels
                         + plan.positions * filters + lanes    // d_output, or rows being stored
                         + filters * plan.plane_stride;        // output, or d_output
  plan.scratch_bytes = floats * sizeof(float) + 16 * kAlignment;
  return plan;
}

const char* CpuStemForward(const StemProblem& problem, const StemForwardArrays& arrays,
                           const ParallelFor& parallel_for) {
  if (const char* reason = UnsupportedReason(problem, Platform::kCpu)) return reason;
  const IsaVariant& variant = ActiveIsaVariant();
  const StemPlan plan = MakeStemPlan(problem, variant.lanes);
  return RunWorkers(
      parallel_for, plan.workers, plan.scratch_bytes,
      [&](int64_t worker, float* scratch) { variant.stem.forward(plan, arrays, worker, scratch); });
}

const char* CpuStemBackward(const StemProblem& problem, const StemBackwardArrays& arrays,
                            const ParallelFor& parallel_for) {
  if (const char* reason = UnsupportedReason(problem, Platform::kCpu)) return reason;
  const IsaVariant& variant = ActiveIsaVariant();
  const StemPlan plan = MakeStemPlan(problem, variant.lanes);
  const char* error = RunWorkers(
      parallel_for, plan.workers, plan.scratch_bytes, [&](int64_t worker, float* scratch) {
        variant.stem.backward(plan, arrays, worker, scratch,
                              arrays.workspace + worker * plan.partial_floats);
      });
  const auto sum_over_workers = [&](int64_t first, int64_t floats) {
    float sum = 0;
    for (int64_t worker = 0; worker < plan.workers; ++worker) {
      for (int64_t i = 0; i < floats; ++i)
        sum += arrays.workspace[worker * plan.partial_floats + first + i];
    }
    return sum;
  };
  const int64_t rows = plan.positions * problem.channels;
  for (int64_t k = 0; k < rows; ++k) {
    for (int64_t n = 0; n < problem.heads; ++n) {
      for (int64_t d = 0; d < problem.head_dim; ++d) {
        arrays.d_w_v[(k * problem.heads + n) * problem.head_dim + d] =
            sum_over_workers((n * rows + k) * plan.padded_head_dim + d, 1);
      }
    }
  }
  const int64_t w_qk_offset = problem.heads * rows * plan.padded_head_dim;
  for (int64_t i = 0; i < problem.heads * problem.channels * problem.channels; ++i) {
    arrays.d_w_qk[i] = sum_over_workers(w_qk_offset + i * variant.lanes, variant.lanes);
  }
  return error;
}

}  // namespace sasa
