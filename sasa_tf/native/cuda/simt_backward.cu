// Backward pass in SIMT arithmetic: the dQ kernel, then the dK/dV kernel, for all head widths and
// windows.
#include <cuda_runtime.h>

#include "cuda/launch.h"
#include "cuda/simt_backward_dkv.cuh"
#include "cuda/simt_backward_dq.cuh"
#include "cuda/simt_traits.cuh"
#include "cuda/table_gradients.cuh"
#include "local_attention.h"

namespace sasa {

void SimtBackward(const LocalAttentionProblem& p, const BackwardArrays& arrays,
                  cudaStream_t stream) {
  DispatchSimtWindow(p, [&](auto head, auto columns) {
    using Head = decltype(head);
    constexpr int kColumns = decltype(columns)::value;
    const TableReduction reduction =
        LaunchBackwardDq<SimtKernelTraits<DqConfig<Head, kColumns>>>(p, arrays, stream);
    LaunchBackwardDkv<SimtKernelTraits<DkvConfig<Head, kColumns>>>(p, arrays, reduction, stream);
  });
}

}  // namespace sasa
