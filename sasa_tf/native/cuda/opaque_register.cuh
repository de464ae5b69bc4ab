// Keeps constants in registers that the compiler would otherwise rematerialize or merge.
#ifndef SASA_TF_NATIVE_CUDA_OPAQUE_REGISTER_CUH_
#define SASA_TF_NATIVE_CUDA_OPAQUE_REGISTER_CUH_

#include <cstdint>

#include "cuda/mma_fragment.cuh"
#include "cuda/warp_reduce.cuh"

namespace sasa {

// Tags of opaque registers: the first tag of each array of them. Tags of equal values must differ
// within a kernel, or the compiler may merge the registers.
enum RegisterTag : int {
  // Forward and dQ: the position bias.
  kTagRowBias = 0,        // up to 12 registers
  kTagColumnOneHot = 12,  // 8
  // Forward.
  kTagForwardQuery = 20,  // 8
  kTagForwardOnes = 30,   // 2
  // dQ.
  kTagColumnSumOnes = 22,  // up to 8
  kTagTf32Ones = 30,       // 2
  kTagDqQuery = 32,        // 8
  kTagDqDOutput = 40,      // 8
  kTagRowSumOnes = 48,     // up to 4
  // dK and dV.
  kTagSelectRowBias = 0,      // 2
  kTagSelectColumnBias = 2,   // 2
  kTagWindowMask = 4,         // up to 14
  kTagDkvKey = 18,            // 8
  kTagDkvValue = 26,          // 8
  kTagSelectDelta = 30,       // 2
  kTagColumnTableZeros = 34,  // 2
  kTagSelectZeros = 36,       // 2
  // Row tiles.
  kTagRowTileColumn = 0,  // 4
  kTagColumnOutside = 4,  // 4
  kTagHasEntry = 8,       // 2
};

// Returns `bits`, but the compiler cannot know that: it keeps the value in a register instead of
// computing it again at each use. Values of different tags are kept in different registers, so that
// those of one mma operand, which must be consecutive, need no moves.
__device__ inline uint32_t OpaqueRegister(uint32_t bits, const MmaLane& lane, int tag) {
  // A shuffled lane id is below 32.
  const unsigned zero = __shfl_xor_sync(kFullMask, lane.id, tag % kWarpSize);
  return bits | zero >> (5 + tag / kWarpSize);
}
__device__ inline float OpaqueRegister(float x, const MmaLane& lane, int tag) {
  return __uint_as_float(OpaqueRegister(__float_as_uint(x), lane, tag));
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_OPAQUE_REGISTER_CUH_
