// Local attention on the processor: how the work is cut, and the kernels that do a piece of it.
//
// A piece is a band of rows of one head of one image. Its keys and values are laid out as
// [D][flat], where `flat` runs through the band row by row with a shared margin of zeros between
// two rows. A neighbour then is a fixed distance away, whatever the query, and neighbouring queries
// are the lanes of a vector: no sums across lanes, no special cases at the border.
#ifndef SASA_TF_NATIVE_CPU_ATTENTION_H_
#define SASA_TF_NATIVE_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "cpu/isa_variant.h"
#include "cpu/parallel_for.h"
#include "local_attention.h"

namespace sasa {

// Distances are in floats, rows and pixels count from 0; all depends on the problem and the number
// of lanes alone, never on the number of threads, and so do the sums.
struct Plan {
  LocalAttentionProblem problem;
  int64_t lanes;
  int64_t depth;       // D, rounded up to whole groups of four
  int64_t window;      // K rows x K columns
  int64_t reach_rows;  // pixels from the query to the window's farthest row
  int64_t reach_columns;
  int64_t row;        // from a pixel to the one below
  int64_t band_rows;  // rows of an image in a piece, the last may have fewer
  int64_t bands;      // pieces that an image's head is cut into
  int64_t pieces;
  int64_t workers;        // worker w does the pieces w, w + workers, ...
  int64_t halo_rows;      // rows above and below of the band that the piece's keys include
  int64_t lead;           // zeros before the first key
  int64_t plane;          // from a channel of the keys to the next
  int64_t block;          // queries that are worked on together, in whole vectors
  int64_t margin;         // zeros before and after them
  int64_t block_plane;    // from a channel of the queries to the next
  int64_t table_size;     // floats of both relative tables
  int64_t scratch_bytes;  // for one worker, aligned to 64
};

Plan ForwardPlan(const LocalAttentionProblem& problem, int64_t lanes);
Plan BackwardPlan(const LocalAttentionProblem& problem, int64_t lanes);

// `tables` are this worker's sums, `table_size` of them, written and not added to.
struct CpuKernels {
  void (*forward)(const Plan& plan, const ForwardArrays& arrays, int64_t worker, float* scratch);
  void (*backward)(const Plan& plan, const BackwardArrays& arrays, int64_t worker, float* scratch,
                   float* tables);
};

// The same source, compiled for several instruction sets.
#define SASA_CPU_KERNELS(name)     \
  namespace name {                 \
  extern const CpuKernels kernels; \
  }
SASA_CPU_KERNELS(plain)
#ifdef __x86_64__
SASA_CPU_KERNELS(avx2)
SASA_CPU_KERNELS(avx512)
#endif

// Each returns null, or the reason why not.
const char* CpuForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                       const ParallelFor& tasks);
const char* CpuBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                        const ParallelFor& tasks);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_ATTENTION_H_
