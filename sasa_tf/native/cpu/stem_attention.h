// Attention inside of blocks on the processor: how the work is cut, and the kernels that do it.
//
// A worker does some rows of blocks. The lanes of a vector are the places of a block, as queries.
#ifndef SASA_TF_NATIVE_CPU_PIXEL_BLOCKS_H_
#define SASA_TF_NATIVE_CPU_PIXEL_BLOCKS_H_

#include "cpu/attention.h"
#include "stem_kernels.h"

namespace sasa {

// Depends on the problem and the number of lanes alone, and so do the sums.
struct StemPlan {
  StemProblem problem;
  int64_t places;         // P
  int64_t plane;          // P, rounded up to whole vectors
  int64_t above, left;    // rows and columns of the first blocks that lie outside of the image
  int64_t high, wide;     // blocks
  int64_t rows;           // of blocks, in all images
  int64_t workers;        // worker w does the rows w, w + workers, ...
  int64_t table_row;      // D, rounded up to whole vectors
  int64_t table_size;     // floats of one worker's gradients
  int64_t scratch_bytes;  // for one worker, aligned to 64
};

StemPlan MakeStemPlan(const StemProblem& problem, int64_t lanes);

// `table` are this worker's sums, `table_size` of them, written and not added to.
struct CpuStemKernels {
  void (*forward)(const StemPlan& plan, const StemForwardArrays& arrays, int64_t worker,
                  float* scratch);
  void (*backward)(const StemPlan& plan, const StemBackwardArrays& arrays, int64_t worker,
                   float* scratch, float* table);
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

// Each returns null, or the reason why not.
const char* CpuStemForward(const StemProblem& problem, const StemForwardArrays& arrays,
                           const ParallelFor& tasks);
const char* CpuStemBackward(const StemProblem& problem, const StemBackwardArrays& arrays,
                            const ParallelFor& tasks);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_PIXEL_BLOCKS_H_
