// The matrix instructions, which the lanes of a warp execute together.
#ifndef SASA_TF_TESTS_NATIVE_EMULATED_GPU_INSTRUCTIONS_H_
#define SASA_TF_TESTS_NATIVE_EMULATED_GPU_INSTRUCTIONS_H_

#include <array>
#include <cstdint>
#include <type_traits>

#include "cuda/half_types.h"
#include "scheduler.h"

namespace emulation {

// ldmatrix: loads `count` matrices of 8 x 8 16-bit elements. Lane i passes the address of row i % 8
// of matrix i / 8, and receives of each matrix the elements of row i / 4, columns i % 4 * 2 and the
// next.
void Ldmatrix(const char* name, SourceLocation location, int count, bool transposed, uint32_t smem,
              uint32_t* matrices);

// stmatrix: stores what ldmatrix loads, to addresses as there.
void Stmatrix(const char* name, SourceLocation location, int count, bool transposed, uint32_t smem,
              std::array<uint32_t, 4> matrices);

// movmatrix: transposes a matrix in the registers that ldmatrix writes.
uint32_t Movmatrix(const char* name, SourceLocation location, uint32_t a);

// mma: acc [16, 8] += a [16, depth] b [depth, 8], of packed bf16 or fp16.
struct MmaFragments {
  uint32_t a[4], b[2];
  float acc[4];
};
void Mma(const char* name, SourceLocation location, bool bf16, int depth, MmaFragments& fragments);

template <typename T>
void Mma(const char* name, SourceLocation location, float (&d)[4], const float (&c)[4],
         const uint32_t (&a)[4], const uint32_t (&b)[2], int depth) {
  MmaFragments fragments = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}};
  Mma(name, location, std::is_same_v<T, sasa::Bfloat16>, depth, fragments);
  for (int i = 0; i < 4; ++i) d[i] = fragments.acc[i];
}

// The same of TF32 [16, 8] and [8, 8]; the low 13 bits of the floats are ignored.
struct Tf32Fragments {
  float a[4], b[2], acc[4];
};
void Mma(const char* name, SourceLocation location, Tf32Fragments& fragments);

}  // namespace emulation

#endif  // SASA_TF_TESTS_NATIVE_EMULATED_GPU_INSTRUCTIONS_H_
