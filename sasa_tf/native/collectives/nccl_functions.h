// The functions of NCCL and of the CUDA driver that all-reduces use, opened at run time, so that
// the library is compiled without CUDA and loads where neither is installed.
#ifndef SASA_TF_NATIVE_COLLECTIVES_NCCL_FUNCTIONS_H_
#define SASA_TF_NATIVE_COLLECTIVES_NCCL_FUNCTIONS_H_

#include <cstddef>
#include <string>
#include <vector>

namespace sasa {

// The declarations of nccl.h, whose values do not change between releases.
using NcclComm = struct NcclCommData*;
struct NcclUniqueId {
  char bytes[128];
};
constexpr int kNcclSuccess = 0, kNcclInProgress = 7;
constexpr int kNcclFloat16 = 6, kNcclFloat32 = 7, kNcclBfloat16 = 9;
constexpr int kNcclSum = 0;

struct NcclFunctions {
  int (*get_version)(int* version);
  const char* (*get_error_string)(int result);
  const char* (*get_last_error)(NcclComm comm);
  int (*comm_init_all)(NcclComm* comms, int num_devices, const int* devices);
  int (*get_unique_id)(NcclUniqueId* id);
  int (*comm_init_rank)(NcclComm* comm, int num_ranks, NcclUniqueId id, int rank);
  int (*comm_get_async_error)(NcclComm comm, int* result);
  int (*comm_abort)(NcclComm comm);
  int (*comm_destroy)(NcclComm comm);
  int (*group_start)();
  int (*group_end)();
  int (*all_reduce)(const void* input, void* output, size_t elements, int type, int operation,
                    NcclComm comm, void* stream);

  // Returns "" or a description of an error, for any result but success.
  std::string Describe(int result) const;
};

// Loads NCCL from the first library that has it. Returns "" or an error message.
std::string LoadNccl(const std::vector<std::string>& paths, NcclFunctions& functions);

// The declarations of cuda.h.
using CudaEvent = struct CudaEventData*;
using CudaContext = struct CudaContextData*;
using CudaStream = struct CudaStreamData*;
constexpr int kCudaSuccess = 0, kCudaNotReady = 600;
constexpr unsigned kCudaEventDisableTiming = 2, kCudaStreamNonBlocking = 1;
constexpr int kCudaHighestPriority = -16;  // beyond the range of any GPU, which CUDA clamps

struct CudaFunctions {
  int (*init)(unsigned flags);
  int (*primary_context_retain)(CudaContext* context, int device);
  int (*context_get_current)(CudaContext* context);
  int (*context_set_current)(CudaContext context);
  int (*stream_create)(CudaStream* stream, unsigned flags, int priority);
  int (*stream_wait_event)(void* stream, CudaEvent event, unsigned flags);
  int (*event_create)(CudaEvent* event, unsigned flags);
  int (*event_record)(CudaEvent event, void* stream);
  int (*event_query)(CudaEvent event);
};

// Loads the CUDA driver. Returns "" or an error message.
std::string LoadCuda(CudaFunctions& functions);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_COLLECTIVES_NCCL_FUNCTIONS_H_
