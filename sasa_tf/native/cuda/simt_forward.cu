// The forward kernels of runs, for all their shapes.
#include "cuda/launch.h"
#include "cuda/simt_attention.cuh"

namespace sasa {

bool RunsCan(const LocalAttentionProblem& p) {
  const bool window = p.kernel_columns % 2 && p.kernel_columns >= 3 && p.kernel_columns <= 11 &&
                      p.kernel_rows % 2 && p.kernel_rows >= 1 && p.kernel_rows <= 11;
  return window && p.head_dim % 4 == 0 && p.head_dim >= 4 && p.head_dim <= 128;
}

// Lengths of runs and blocks at a time are those that were fastest on an H200.
void RunsForward(const LocalAttentionProblem& p, const ForwardArrays& arrays, cudaStream_t stream) {
  WithShape(p, [&](auto columns, auto slice, auto lanes) {
    constexpr int kRun = slice <= 8 && columns <= 7 ? 4 : 2;
    LaunchForward<Shape<slice, lanes, kRun, columns, 3>>(p, arrays, stream);
  });
}

}  // namespace sasa
