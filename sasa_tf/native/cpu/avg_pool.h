// Means of outputs over blocks of pixels, where a program that was made for a GPU runs on the
// processor. Layers made for processors pool by stock operations.
#ifndef SASA_TF_NATIVE_CPU_MEANS_H_
#define SASA_TF_NATIVE_CPU_MEANS_H_

#include <vector>

#include "local_attention.h"

namespace sasa {

// Writes the means of the problem's outputs.
void WriteMeans(const LocalAttentionProblem& problem, const void* outputs, void* means);

// The gradient of the outputs, of the problem's type, from that of their means.
std::vector<char> GradientOfOutputs(const LocalAttentionProblem& problem, const void* of_means);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_MEANS_H_
