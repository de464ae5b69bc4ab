// Instructions that the lanes of a warp execute together, and copies to shared memory.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_INSTRUCTIONS_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_INSTRUCTIONS_H_

#include <cstdint>
#include <type_traits>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "scheduler.h"

namespace emulation {

// ldmatrix: of `count` matrices of 8 x 8 halves, lane i gives the address of row i % 8 of matrix
// i / 8, and gets the two halves of each at row i / 4 and columns from i % 4 * 2.
void Ldmatrix(const char* name, Site site, int count, bool transposed, uint32_t from,
                  uint32_t* to);

// movmatrix: a matrix that lies over the lanes as those do.
uint32_t Movmatrix(const char* name, Site site, uint32_t own);

// mma: sum [16, 8] = start + a [16, depth] b [depth, 8].
struct MmaFragments {
  uint32_t a[4], b[2];
  float sum[4];
};
void Mma(const char* name, Site site, bool brain, int depth, MmaFragments& own);

template <typename T>
void Mma(const char* name, Site site, float (&sum)[4], const float (&start)[4],
              const uint32_t (&a)[4], const uint32_t (&b)[2], int depth) {
  MmaFragments own = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {start[0], start[1], start[2], start[3]}};
  Mma(name, site, std::is_same_v<T, __nv_bfloat16>, depth, own);
  for (int i = 0; i < 4; ++i) sum[i] = own.sum[i];
}

// The same with [16, 8] and [8, 8] floats, of which the last 13 bits are not looked at.
struct Tf32Fragments {
  float a[4], b[2], sum[4];
};
void Mma(const char* name, Site site, Tf32Fragments& own);

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_INSTRUCTIONS_H_
