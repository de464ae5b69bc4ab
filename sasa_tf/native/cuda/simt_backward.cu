// The backward kernels of runs, for all their shapes.
#include "cuda/launch.h"
#include "cuda/simt_attention.cuh"

namespace sasa {

// Lengths of runs and blocks at a time are those that were fastest on an H200.
void RunsBackward(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                  cudaStream_t stream) {
  WithShape(p, [&](auto columns, auto slice, auto lanes) {
    constexpr int kQueryRun = columns <= 7 ? 2 : 1;
    constexpr int kQueryBlocks = slice <= 8 ? 3 : 2;
    const TableSums sums =
        LaunchQueryBackward<Shape<slice, lanes, kQueryRun, columns, kQueryBlocks>>(p, arrays,
                                                                                   stream);
    constexpr int kKeyRun = slice <= 8 ? 2 : 1;
    LaunchKeyBackward<Shape<slice, lanes, kKeyRun, columns, 3>>(p, arrays, sums, stream);
  });
}

}  // namespace sasa
