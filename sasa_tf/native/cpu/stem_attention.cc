#include "cpu/stem_attention.h"

#include <algorithm>

#include "limits.h"

namespace sasa {

StemPlan MakeStemPlan(const StemProblem& p, int64_t lanes) {
  StemPlan plan = {};
  plan.problem = p;
  plan.places = p.block_rows * p.block_columns;
  plan.plane = RoundUp(plan.places, lanes);
  plan.high = (p.height + p.block_rows - 1) / p.block_rows;
  plan.wide = (p.width + p.block_columns - 1) / p.block_columns;
  plan.above = (plan.high * p.block_rows - p.height) / 2;
  plan.left = (plan.wide * p.block_columns - p.width) / 2;
  plan.rows = plan.wide > 0 ? p.batch * plan.high : 0;
  plan.workers = std::min(plan.rows, kStemWorkers);
  plan.table_row = RoundUp(p.head_dim, lanes);
  plan.table_size =
      p.heads * (plan.places * p.channels * plan.table_row + p.channels * p.channels * lanes);
  const int64_t filters = p.heads * p.head_dim, products = plan.places * p.channels;
  const int64_t floats = (p.channels + 1) * plan.plane       // pixels, border
                         + (plan.places + products) * lanes  // weights, slopes
                         + products * plan.plane             // weighted pixels
                         + plan.places * filters + lanes     // upstream, or rows on their way
                         + filters * plan.plane;             // outputs, or upstream
  plan.scratch_bytes = floats * sizeof(float) + 16 * kAlignment;
  return plan;
}

const char* CpuStemForward(const StemProblem& problem, const StemForwardArrays& arrays,
                           const ParallelFor& tasks) {
  if (const char* reason = UnsupportedReason(problem, Platform::kCpu)) return reason;
  const CpuVariant& variant = ChosenCpuVariant();
  const StemPlan plan = MakeStemPlan(problem, variant.lanes);
  return RunWorkers(tasks, plan.workers, plan.scratch_bytes, [&](int64_t worker, float* scratch) {
    variant.pixels.forward(plan, arrays, worker, scratch);
  });
}

const char* CpuStemBackward(const StemProblem& problem, const StemBackwardArrays& arrays,
                            const ParallelFor& tasks) {
  if (const char* reason = UnsupportedReason(problem, Platform::kCpu)) return reason;
  const CpuVariant& variant = ChosenCpuVariant();
  const StemPlan plan = MakeStemPlan(problem, variant.lanes);
  const char* error =
      RunWorkers(tasks, plan.workers, plan.scratch_bytes, [&](int64_t worker, float* scratch) {
        variant.pixels.backward(plan, arrays, worker, scratch,
                                arrays.workspace + worker * plan.table_size);
      });
  const auto total = [&](int64_t at, int64_t floats) {
    float sum = 0;
    for (int64_t worker = 0; worker < plan.workers; ++worker) {
      for (int64_t i = 0; i < floats; ++i)
        sum += arrays.workspace[worker * plan.table_size + at + i];
    }
    return sum;
  };
  const int64_t products = plan.places * problem.channels;
  for (int64_t k = 0; k < products; ++k) {
    for (int64_t n = 0; n < problem.heads; ++n) {
      for (int64_t d = 0; d < problem.head_dim; ++d) {
        arrays.d_w_v[(k * problem.heads + n) * problem.head_dim + d] =
            total((n * products + k) * plan.table_row + d, 1);
      }
    }
  }
  const int64_t behind = problem.heads * products * plan.table_row;
  for (int64_t i = 0; i < problem.heads * problem.channels * problem.channels; ++i) {
    arrays.d_w_qk[i] = total(behind + i * variant.lanes, variant.lanes);
  }
  return error;
}

}  // namespace sasa
