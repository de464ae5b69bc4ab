// Average pooling of the output on the CPU, for programs that were traced for GPUs. Programs traced
// for CPUs pool with TensorFlow operations instead.
#ifndef SASA_TF_NATIVE_CPU_AVG_POOL_H_
#define SASA_TF_NATIVE_CPU_AVG_POOL_H_

#include <vector>

#include "local_attention.h"

namespace sasa {

// Writes the output averaged over blocks of pool_size x pool_size pixels.
void AvgPoolOutput(const LocalAttentionProblem& problem, const void* output, void* pooled);

// Returns the gradient of the output, in the problem's type, from that of the pooled output.
std::vector<char> AvgPoolGradient(const LocalAttentionProblem& problem, const void* d_pooled);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_AVG_POOL_H_
