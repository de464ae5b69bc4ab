// The CPU kernels of local attention: how the work is divided, and the kernels that compute a band.
//
// A band is a range of rows of one head of one image. Its keys and values are stored as planes, one
// per channel, [D][flat], where `flat` runs through the rows with zeros between one row and the
// next. So every neighbor is at a constant offset from its query, and consecutive queries are the
// lanes of a vector: there are no horizontal sums and no special cases at the border.
#ifndef SASA_TF_NATIVE_CPU_ATTENTION_H_
#define SASA_TF_NATIVE_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "cpu/isa_variant.h"
#include "cpu/parallel_for.h"
#include "local_attention.h"

namespace sasa {

// Offsets and strides are in floats. The plan depends only on the problem and the number of lanes,
// not on the number of threads, and so do the results.
struct Plan {
  LocalAttentionProblem problem;
  int64_t lanes;               // floats in a vector
  int64_t padded_head_dim;     // D, rounded up to a multiple of 4
  int64_t window_size;         // kernel rows x kernel columns
  int64_t radius_rows;         // pixels from a query to the last row of its window
  int64_t radius_columns;      // pixels from a query to the last column of its window
  int64_t row_stride;          // from a pixel to the one below
  int64_t band_rows;           // rows of queries in a band; the last band may have fewer
  int64_t bands_per_head;      // bands of one head of one image
  int64_t num_bands;           // in total
  int64_t workers;             // worker w computes the bands w, w + workers, ...
  int64_t halo_rows;           // rows of keys above and below the band that are loaded too
  int64_t leading_zeros;       // zeros before the first key
  int64_t plane_stride;        // from a channel of the keys to the next
  int64_t query_block;         // queries that are processed together, a multiple of the lanes
  int64_t margin;              // zeros before and after a block of queries
  int64_t query_plane_stride;  // from a channel of the queries to the next
  int64_t table_floats;        // elements of both relative tables
  int64_t scratch_bytes;       // per worker, with 64-byte alignment
};

Plan ForwardPlan(const LocalAttentionProblem& problem, int64_t lanes);
Plan BackwardPlan(const LocalAttentionProblem& problem, int64_t lanes);

// `d_tables` is overwritten with this worker's partial sums, `table_floats` of them.
struct CpuKernels {
  void (*forward)(const Plan& plan, const ForwardArrays& arrays, int64_t worker, float* scratch);
  void (*backward)(const Plan& plan, const BackwardArrays& arrays, int64_t worker, float* scratch,
                   float* d_tables);
};

// One source, compiled for several instruction sets.
#define SASA_CPU_KERNELS(name)     \
  namespace name {                 \
  extern const CpuKernels kernels; \
  }
SASA_CPU_KERNELS(plain)
#ifdef __x86_64__
SASA_CPU_KERNELS(avx2)
SASA_CPU_KERNELS(avx512)
#endif

// Compute local attention with the given threads. They return null, or an error message.
const char* CpuForward(const LocalAttentionProblem& problem, const ForwardArrays& arrays,
                       const ParallelFor& parallel_for);
const char* CpuBackward(const LocalAttentionProblem& problem, const BackwardArrays& arrays,
                        const ParallelFor& parallel_for);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CPU_ATTENTION_H_
