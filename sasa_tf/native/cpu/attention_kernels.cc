// The CPU kernels of local attention, compiled once for each instruction set (see cpu/simd.h).
#include "cpu/attention.h"
#include "cpu/attention_backward.h"
#include "cpu/attention_forward.h"

namespace sasa {
namespace SASA_VARIANT {
namespace {

// Calls run(kernel columns, band) for each band of a worker, with a compile-time constant.
template <typename Run>
void ForEachBand(const Plan& plan, int64_t worker, Run run) {
  for (int64_t index = worker; index < plan.num_bands; index += plan.workers) {
    const Band band(plan, index);
    switch (plan.problem.kernel_columns) {
      case 1:
        run(IntConstant<1>(), band);
        break;
      case 3:
        run(IntConstant<3>(), band);
        break;
      case 5:
        run(IntConstant<5>(), band);
        break;
      case 7:
        run(IntConstant<7>(), band);
        break;
      case 9:
        run(IntConstant<9>(), band);
        break;
      case 11:
        run(IntConstant<11>(), band);
        break;
    }
  }
}

void Forward(const Plan& plan, const ForwardArrays& arrays, int64_t worker, float* scratch) {
  ForEachBand(plan, worker, [&](auto columns, const Band& band) {
    ForwardBand<columns.value>(plan, arrays, band, scratch);
  });
}

void Backward(const Plan& plan, const BackwardArrays& arrays, int64_t worker, float* scratch,
              float* tables) {
  // One vector per element of the tables, summed at the end.
  const int64_t floats = plan.table_floats * kLanes;
  Zero(scratch, floats);
  ForEachBand(plan, worker, [&](auto columns, const Band& band) {
    BackwardBand<columns.value>(plan, arrays, band, scratch + (floats + 15) / 16 * 16, scratch);
  });
  for (int64_t i = 0; i < plan.table_floats; ++i) tables[i] = Sum(Load(scratch + i * kLanes));
}

}  // namespace

const CpuKernels kernels = {Forward, Backward};

}  // namespace SASA_VARIANT
}  // namespace sasa
