// Typed arrays and comparisons for the programs that check the kernels.
#ifndef SASA_TF_TESTS_NATIVE_CHECKS_H_
#define SASA_TF_TESTS_NATIVE_CHECKS_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "cpu/isa_variant.h"
#include "local_attention.h"

// An array of a kernel, allocated with its exact size so that sanitizers find overflows.
struct Typed {
  std::vector<char> bytes;
  sasa::DType type;

  Typed(sasa::DType type, size_t count) : bytes(count * Size(type)), type(type) {}

  static size_t Size(sasa::DType type) { return type == sasa::DType::kFloat32 ? 4 : 2; }

  void* data() { return bytes.data(); }
  size_t size() const { return bytes.size() / Size(type); }

  double Get(size_t i) const {
    if (type == sasa::DType::kFloat32) {
      float x;
      std::memcpy(&x, &bytes[i * 4], 4);
      return x;
    }
    uint16_t bits;
    std::memcpy(&bits, &bytes[i * 2], 2);
    if (type == sasa::DType::kBfloat16) {
      const uint32_t wide = uint32_t{bits} << 16;
      float x;
      std::memcpy(&x, &wide, 4);
      return x;
    }
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                             : exponent == 31 ? (fraction ? NAN : INFINITY)
                                              : std::ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
  }

  // Sets a bfloat16 array to values that it represents exactly.
  void SetExact(const std::vector<double>& values) {
    for (size_t i = 0; i < values.size(); ++i) {
      const float x = values[i];
      std::memcpy(&bytes[i * 2], reinterpret_cast<const char*>(&x) + 2, 2);
    }
  }

  // Sets an element to NaN or infinity, also in the copy.
  void SetNonFinite(size_t i, bool infinite, std::vector<double>& copy) {
    copy[i] = infinite ? INFINITY : NAN;
    const float x = copy[i];
    uint32_t wide;
    std::memcpy(&wide, &x, 4);
    const uint16_t half = type == sasa::DType::kBfloat16 ? wide >> 16 : infinite ? 0x7c00 : 0x7e00;
    if (type == sasa::DType::kFloat32) {
      std::memcpy(&bytes[i * 4], &wide, 4);
    } else {
      std::memcpy(&bytes[i * 2], &half, 2);
    }
  }

  // Fills the array with random values that every type represents exactly.
  void Fill(std::mt19937& random, std::vector<double>& copy) {
    std::uniform_int_distribution<int> sixteenths(-32, 32);
    copy.resize(size());
    for (size_t i = 0; i < size(); ++i) {
      const float x = sixteenths(random) / 16.0f;
      copy[i] = x;
      if (type == sasa::DType::kFloat32) {
        std::memcpy(&bytes[i * 4], &x, 4);
        continue;
      }
      uint32_t wide;
      std::memcpy(&wide, &x, 4);
      uint16_t bits = wide >> 16;
      if (type == sasa::DType::kFloat16) {
        const int exponent = (wide >> 23 & 255) - 112;
        bits = x == 0 ? 0 : (wide >> 16 & 0x8000) | exponent << 10 | (wide >> 13 & 1023);
      }
      std::memcpy(&bytes[i * 2], &bits, 2);
    }
  }
};

inline bool Same(const char* name, const Typed& actual, const std::vector<double>& expected,
                 double tolerance, double scale = 1) {
  double error = 0;
  for (double x : expected) scale = std::fmax(scale, std::fabs(x));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(actual.Get(i) - expected[i]);
    error = std::isnan(difference) ? INFINITY : std::fmax(error, difference);
  }
  if (error <= tolerance * scale) return true;
  std::printf("%s differs by %g of %g\n", name, error, scale);
  return false;
}

// Whether no element is finite whose expected value is not, so that no fault is hidden.
inline bool ShowsNonFinite(const char* name, const Typed& actual,
                           const std::vector<double>& expected) {
  size_t hidden = 0, first = 0;
  for (size_t i = expected.size(); i-- > 0;) {
    if (std::isfinite(expected[i]) || !std::isfinite(actual.Get(i))) continue;
    ++hidden;
    first = i;
  }
  if (hidden == 0) return true;
  std::printf("%s has %zu finite elements, such as %zu, where the loops have NaN or infinity\n", name,
              hidden, first);
  return false;
}

// 1: an element of an input or of the upstream gradient is NaN, 2: it is infinite. The kernels must
// not hide it, and are not compared otherwise.
inline int nonfinite = 0;

inline bool Agrees(const char* name, const Typed& actual, const std::vector<double>& expected,
                   double tolerance, double scale = 1) {
  return nonfinite ? ShowsNonFinite(name, actual, expected)
                   : Same(name, actual, expected, tolerance, scale);
}

inline void RunInThreads(void* threads, int64_t count, void (*task)(void*, int64_t),
                         void* context) {
  std::vector<std::thread> running;
  for (int64_t t = 0; t < *static_cast<int64_t*>(threads); ++t) {
    running.emplace_back([=] {
      for (int64_t i = t; i < count; i += *static_cast<int64_t*>(threads)) task(context, i);
    });
  }
  for (std::thread& thread : running) thread.join();
}

// Calls check(random) the number of times that the command line gives, until one fails.
inline int RunChecks(int argc, char** argv, const char* what, bool (*check)(std::mt19937&)) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 300;
  std::mt19937 random(1);
  for (int i = 0; i < count; ++i) {
    if (!check(random)) return 1;
  }
  std::printf("%d problems %s agree, with vectors of %d floats\n", count, what,
              int(sasa::ActiveIsaVariant().lanes));
  return 0;
}

#endif  // SASA_TF_TESTS_NATIVE_CHECKS_H_
