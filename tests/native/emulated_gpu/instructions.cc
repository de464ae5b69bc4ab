#include "instructions.h"

#include <cstring>

#include "half_types.h"

namespace emulation {

void Ldmatrix(const char* name, SourceLocation location, int count, bool transposed, uint32_t smem,
              uint32_t* matrices) {
  struct Operands {
    const char* row;
    uint32_t* matrices;
  } operands = {nullptr, matrices};
  if (Lane() < 8 * count) operands.row = ResolveSmem(name, location, smem, 16, 16);
  RunCollective(name, location, ~0u, true, operands, [&](Operands* const* all) {
    for (int i = 0; i < count; ++i) {
      uint16_t matrix[8][8];
      for (int row = 0; row < 8; ++row) std::memcpy(matrix[row], all[8 * i + row]->row, 16);
      for (int lane = 0; lane < kWarp; ++lane) {
        const int row = lane / 4, column = lane % 4 * 2;
        const uint32_t low = transposed ? matrix[column][row] : matrix[row][column];
        const uint32_t high = transposed ? matrix[column + 1][row] : matrix[row][column + 1];
        all[lane]->matrices[i] = low | high << 16;
      }
    }
  });
}

void Stmatrix(const char* name, SourceLocation location, int count, bool transposed, uint32_t smem,
              std::array<uint32_t, 4> matrices) {
  struct Operands {
    char* row;
    std::array<uint32_t, 4> matrices;
  } operands = {nullptr, matrices};
  if (Lane() < 8 * count) operands.row = ResolveSmem(name, location, smem, 16, 16);
  RunCollective(name, location, ~0u, true, operands, [&](Operands* const* all) {
    for (int i = 0; i < count; ++i) {
      uint16_t matrix[8][8];
      for (int lane = 0; lane < kWarp; ++lane) {
        for (int j = 0; j < 2; ++j) {
          const int row = lane / 4, column = lane % 4 * 2 + j;
          const uint16_t element = all[lane]->matrices[i] >> 16 * j;
          (transposed ? matrix[column][row] : matrix[row][column]) = element;
        }
      }
      for (int row = 0; row < 8; ++row) std::memcpy(all[8 * i + row]->row, matrix[row], 16);
    }
  });
}

uint32_t Movmatrix(const char* name, SourceLocation location, uint32_t a) {
  RunCollective(name, location, ~0u, true, a, [](uint32_t* const* all) {
    uint16_t matrix[8][8];
    for (int lane = 0; lane < kWarp; ++lane) {
      std::memcpy(&matrix[lane / 4][lane % 4 * 2], all[lane], 4);
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      *all[lane] = matrix[column][row] | static_cast<uint32_t>(matrix[column + 1][row]) << 16;
    }
  });
  return a;
}

void Mma(const char* name, SourceLocation location, bool bf16, int depth, MmaFragments& fragments) {
  const auto act = [=](MmaFragments* const* all) {
    float a[16][16], b[16][8], acc[16][8];
    const auto unpack = [=](uint32_t packed, int i) {
      const uint16_t bits = i ? packed >> 16 : packed & 0xffff;
      return bf16 ? Bfloat16::ToFloat(bits) : Float16::ToFloat(bits);
    };
    for (int lane = 0; lane < kWarp; ++lane) {
      const int row = lane / 4, pair = lane % 4 * 2;
      std::memcpy(&acc[row][pair], all[lane]->acc, 8);
      std::memcpy(&acc[row + 8][pair], all[lane]->acc + 2, 8);
      for (int i = 0; i < 2; ++i) {
        for (int k = 0; k < depth / 8; ++k) {
          a[row][8 * k + pair + i] = unpack(all[lane]->a[2 * k], i);
          a[row + 8][8 * k + pair + i] = unpack(all[lane]->a[2 * k + 1], i);
          b[8 * k + pair + i][row] = unpack(all[lane]->b[k], i);
        }
      }
    }
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < depth; ++k) {
        for (int column = 0; column < 8; ++column) acc[row][column] += a[row][k] * b[k][column];
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      const int row = lane / 4, pair = lane % 4 * 2;
      std::memcpy(all[lane]->acc, &acc[row][pair], 8);
      std::memcpy(all[lane]->acc + 2, &acc[row + 8][pair], 8);
    }
  };
  RunCollective(name, location, ~0u, true, fragments, act);
}

void Mma(const char* name, SourceLocation location, Tf32Fragments& fragments) {
  const auto truncate = [](float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits &= 0xffffe000u;
    std::memcpy(&x, &bits, 4);
    return x;
  };
  const auto act = [=](Tf32Fragments* const* all) {
    float a[16][8], b[8][8];
    for (int lane = 0; lane < kWarp; ++lane) {
      const int row = lane / 4, column = lane % 4;
      for (int k = 0; k < 2; ++k) {
        a[row][4 * k + column] = truncate(all[lane]->a[2 * k]);
        a[row + 8][4 * k + column] = truncate(all[lane]->a[2 * k + 1]);
        b[4 * k + column][row] = truncate(all[lane]->b[k]);
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 8; ++k) all[lane]->acc[i] += a[row][k] * b[k][column];
      }
    }
  };
  RunCollective(name, location, ~0u, true, fragments, act);
}

}  // namespace emulation
