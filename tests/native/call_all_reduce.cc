// A C function that calls a group as XLA's custom call does.
#include <string>

#include "collectives/replica_group.h"
#include "export.h"

// Reduces one array of float32 or bfloat16 in place. Returns "", or an error message.
SASA_EXPORT const char* call_all_reduce(int64_t group, int32_t replica, void* array,
                                        int64_t elements, int32_t is_bfloat16, void* stream) {
  static thread_local std::string result;
  const sasa::DType type = is_bfloat16 ? sasa::DType::kBfloat16 : sasa::DType::kFloat32;
  result = "not done";
  sasa::FindGroup(group)->AllReduce(replica, {{array, array, elements, type}}, stream,
                                    [](const std::string& error) { result = error; });
  return result.c_str();
}
