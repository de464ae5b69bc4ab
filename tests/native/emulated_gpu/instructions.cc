#include "instructions.h"

#include <cstring>

namespace emulation {

void Ldmatrix(const char* name, Site site, int count, bool transposed, uint32_t from,
                  uint32_t* to) {
  struct Operands {
    const char* row;
    uint32_t* to;
  } own = {nullptr, to};
  if (Lane() < 8 * count) own.row = SharedAt(name, site, from, 16, 16);
  Meet(name, site, ~0u, true, own, [&](Operands* const* all) {
    for (int i = 0; i < count; ++i) {
      uint16_t matrix[8][8];
      for (int row = 0; row < 8; ++row) std::memcpy(matrix[row], all[8 * i + row]->row, 16);
      for (int lane = 0; lane < kWarp; ++lane) {
        const int row = lane / 4, column = lane % 4 * 2;
        const uint32_t low = transposed ? matrix[column][row] : matrix[row][column];
        const uint32_t high = transposed ? matrix[column + 1][row] : matrix[row][column + 1];
        all[lane]->to[i] = low | high << 16;
      }
    }
  });
}

uint32_t Movmatrix(const char* name, Site site, uint32_t own) {
  Meet(name, site, ~0u, true, own, [](uint32_t* const* all) {
    uint16_t matrix[8][8];
    for (int lane = 0; lane < kWarp; ++lane) {
      std::memcpy(&matrix[lane / 4][lane % 4 * 2], all[lane], 4);
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      *all[lane] = matrix[column][row] | static_cast<uint32_t>(matrix[column + 1][row]) << 16;
    }
  });
  return own;
}

void Mma(const char* name, Site site, bool brain, int depth, MmaFragments& own) {
  const auto act = [=](MmaFragments* const* all) {
    float a[16][16], b[16][8], sum[16][8];
    const auto widen = [=](uint32_t two, int i) {
      const uint16_t bits = i ? two >> 16 : two & 0xffff;
      return brain ? Bfloat16::Widen(bits) : Float16::Widen(bits);
    };
    for (int lane = 0; lane < kWarp; ++lane) {
      const int row = lane / 4, pair = lane % 4 * 2;
      std::memcpy(&sum[row][pair], all[lane]->sum, 8);
      std::memcpy(&sum[row + 8][pair], all[lane]->sum + 2, 8);
      for (int i = 0; i < 2; ++i) {
        for (int k = 0; k < depth / 8; ++k) {
          a[row][8 * k + pair + i] = widen(all[lane]->a[2 * k], i);
          a[row + 8][8 * k + pair + i] = widen(all[lane]->a[2 * k + 1], i);
          b[8 * k + pair + i][row] = widen(all[lane]->b[k], i);
        }
      }
    }
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < depth; ++k) {
        for (int column = 0; column < 8; ++column) sum[row][column] += a[row][k] * b[k][column];
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      const int row = lane / 4, pair = lane % 4 * 2;
      std::memcpy(all[lane]->sum, &sum[row][pair], 8);
      std::memcpy(all[lane]->sum + 2, &sum[row + 8][pair], 8);
    }
  };
  Meet(name, site, ~0u, true, own, act);
}

void Mma(const char* name, Site site, Tf32Fragments& own) {
  const auto coarse = [](float x) {
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
        a[row][4 * k + column] = coarse(all[lane]->a[2 * k]);
        a[row + 8][4 * k + column] = coarse(all[lane]->a[2 * k + 1]);
        b[4 * k + column][row] = coarse(all[lane]->b[k]);
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 8; ++k) all[lane]->sum[i] += a[row][k] * b[k][column];
      }
    }
  };
  Meet(name, site, ~0u, true, own, act);
}

}  // namespace emulation
