// C functions that call a group as XLA's custom calls do.
#include <string>
#include <vector>

#include "collectives/replica_group.h"
#include "export.h"

namespace {

std::vector<sasa::ReduceArray> OneArray(void* array, int64_t elements, bool is_bfloat16) {
  const sasa::DType type = is_bfloat16 ? sasa::DType::kBfloat16 : sasa::DType::kFloat32;
  return {{array, array, elements, type}};
}

}  // namespace

// Reduces one array of float32 or bfloat16 in place. Returns "", or an error message.
SASA_EXPORT const char* call_all_reduce(int64_t group, int32_t replica, int64_t program,
                                        void* array, int64_t elements, int32_t is_bfloat16,
                                        void* stream) {
  static thread_local std::string result;
  result = "not done";
  sasa::FindGroup(group)->AllReduce({replica, program}, OneArray(array, elements, is_bfloat16),
                                    stream, [](const std::string& error) { result = error; });
  return result.c_str();
}

// The same in two parts, for float32.
SASA_EXPORT const char* call_all_reduce_start(int64_t group, int32_t replica, int64_t slot,
                                              void* array, int64_t elements, void* stream) {
  static thread_local std::string result;
  result = sasa::FindGroup(group)->Start({replica, 0}, slot, OneArray(array, elements, false),
                                         stream);
  return result.c_str();
}

SASA_EXPORT const char* call_all_reduce_finish(int64_t group, int32_t replica, int64_t slot,
                                               void* array, int64_t elements, void* stream) {
  static thread_local std::string result;
  result = "not done";
  sasa::FindGroup(group)->Finish({replica, 0}, slot, OneArray(array, elements, false), stream,
                                 [](const std::string& error) { result = error; });
  return result.c_str();
}
