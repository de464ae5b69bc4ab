// The CPU kernels of stem attention: how the work is divided, and the kernels.
//
// A worker computes some rows of blocks. The lanes of a vector are positions of a block, as
// queries.
#ifndef SASA_TF_NATIVE_CPU_STEM_ATTENTION_H_
#define SASA_TF_NATIVE_CPU_STEM_ATTENTION_H_

#include "cpu/attention.h"
#include "stem_kernels.h"

namespace sasa {

// Depends only on the problem and the number of lanes, and so do the results.
struct StemPlan {
  StemProblem problem;
  int64_t positions;          // P
  int64_t plane_stride;       // P, rounded up to a multiple of the lanes
  int64_t pad_top, pad_left;  // rows and columns of the first blocks outside the image
  int64_t grid_rows;          // rows of blocks in an image
  int64_t grid_columns;       // columns of blocks in an image
  int64_t total_block_rows;   // rows of blocks in the batch
  int64_t workers;            // worker w computes the rows of blocks w, w + workers, ...
  int64_t padded_head_dim;    // D, rounded up to a multiple of the lanes
  int64_t partial_floats;     // of one worker's partial sums of the gradients
  int64_t scratch_bytes;      // per worker, with 64-byte alignment
};

StemPlan MakeStemPlan(const StemProblem& problem, int64_t lanes);

// `partial` is overwritten with this worker's sums, `partial_floats` of them.
struct CpuStemKernels {
  void (*forward)(const StemPlan& plan, const StemForwardArrays& arrays, int64_t worker,
                  float* scratch);
  void (*backward)(const StemPlan& plan, const StemBackwardArrays& arrays, int64_t worker,
                   float* scratch, float* partial);
};

#define SASA_CPU_STEM_KERNELS(name)         \
  namespace name {                          \
  extern const CpuStemKernels stem_kernels; \
  }
SASA_CPU_STEM_KERNELS(plain)
#ifdef __x86_64__
SASA_CPU_STEM_KERNELS(avx2)
SASA_CPU_STEM_KERNELS(avx512)
#endif

// Compute stem attention with the given threads. They return null, or an error message.
const char* CpuStemForward(const StemProblem& problem, const StemForwardArrays& arrays,
                           const ParallelFor& parallel_for);
const char* CpuStemBackward(const StemProblem& problem, const StemBackwardArrays& arrays,
                            const ParallelFor& parallel_for);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_STEM_ATTENTION_H_
