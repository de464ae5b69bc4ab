#include "collectives/nccl_functions.h"

#include "collectives/dynamic_library.h"

namespace sasa {

std::string NcclFunctions::Describe(int result) const {
  if (result == kNcclSuccess) return "";
  std::string text = std::string("NCCL: ") + get_error_string(result);
  // It describes the last error of any communicator of this thread.
  if (const char* details = get_last_error(nullptr); details != nullptr && *details != '\0') {
    text += std::string(" (") + details + ")";
  }
  return text;
}

std::string LoadNccl(const std::vector<std::string>& paths, NcclFunctions& functions) {
  std::string errors;
  for (const std::string& path : paths) {
    DynamicLibrary library(path);
    library.Find("ncclGetVersion", functions.get_version);
    library.Find("ncclGetErrorString", functions.get_error_string);
    library.Find("ncclGetLastError", functions.get_last_error);
    library.Find("ncclCommInitAll", functions.comm_init_all);
    library.Find("ncclGetUniqueId", functions.get_unique_id);
    library.Find("ncclCommInitRank", functions.comm_init_rank);
    library.Find("ncclCommGetAsyncError", functions.comm_get_async_error);
    library.Find("ncclCommAbort", functions.comm_abort);
    library.Find("ncclCommDestroy", functions.comm_destroy);
    library.Find("ncclGroupStart", functions.group_start);
    library.Find("ncclGroupEnd", functions.group_end);
    library.Find("ncclAllReduce", functions.all_reduce);
    if (library.error().empty()) return "";
    errors += (errors.empty() ? "" : "; ") + path + ": " + library.error();
  }
  return "NCCL was not found in " + errors;
}

std::string LoadCuda(CudaFunctions& functions) {
  DynamicLibrary library("libcuda.so.1");
  library.Find("cuInit", functions.init);
  library.Find("cuDevicePrimaryCtxRetain", functions.primary_context_retain);
  library.Find("cuCtxGetCurrent", functions.context_get_current);
  library.Find("cuCtxSetCurrent", functions.context_set_current);
  library.Find("cuStreamCreateWithPriority", functions.stream_create);
  library.Find("cuStreamWaitEvent", functions.stream_wait_event);
  library.Find("cuEventCreate", functions.event_create);
  library.Find("cuEventRecord", functions.event_record);
  library.Find("cuEventQuery", functions.event_query);
  return library.error();
}

}  // namespace sasa
