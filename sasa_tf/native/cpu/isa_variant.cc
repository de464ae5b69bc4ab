#include "cpu/isa_variant.h"

#include <cstdlib>
#include <string>

#include "cpu/attention.h"
#include "cpu/stem_attention.h"

namespace sasa {
namespace {

const IsaVariant kPlain = {4, plain::kernels, plain::stem_kernels};
#ifdef __x86_64__
const IsaVariant kAvx2 = {8, avx2::kernels, avx2::stem_kernels};
const IsaVariant kAvx512 = {16, avx512::kernels, avx512::stem_kernels};
#endif

}  // namespace

const IsaVariant& ActiveIsaVariant() {
  static const IsaVariant& chosen = []() -> const IsaVariant& {
    const char* name = std::getenv("SASA_TF_NATIVE_CPU");
    const std::string best = name == nullptr ? "avx512" : name;
#ifdef __x86_64__
    __builtin_cpu_init();
    if (best == "avx512" && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
      return kAvx512;
    }
    if (best != "plain" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      return kAvx2;
    }
#endif
    return kPlain;
  }();
  return chosen;
}

}  // namespace sasa
