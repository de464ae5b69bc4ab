// NCCL and the CUDA driver as far as all-reduces need them, without a GPU: counts calls, and returns
// the errors that a test sets.
#include <cstddef>
#include <cstdio>
#include <cstring>

#define FAKE extern "C" __attribute__((visibility("default")))

FAKE int fake_init_result = 0, fake_all_reduce_result = 0, fake_async_error = 0;
FAKE int fake_event_result = 0;  // 600: the GPU has not reached the event
FAKE int fake_reduced = 0, fake_in_group = 0, fake_aborted = 0, fake_destroyed = 0, fake_events = 0;
FAKE void* fake_last_comm = nullptr;
FAKE void* fake_last_stream = nullptr;
FAKE int fake_last_type = 0, fake_ranks = 0;
FAKE void* fake_context = nullptr;
// What was enqueued on the streams, such as "7:record 7:wait", with the numbers of the streams.
FAKE char fake_log[1000] = "";

static void Log(void* stream, const char* what) {
  const size_t used = std::strlen(fake_log);
  std::snprintf(fake_log + used, sizeof(fake_log) - used, "%zu:%s ",
                reinterpret_cast<size_t>(stream), what);
}

FAKE int ncclGetVersion(int* version) { return *version = 22501, 0; }
FAKE const char* ncclGetErrorString(int) { return "unhandled system error"; }
FAKE const char* ncclGetLastError(void*) { return "a cable is missing"; }
FAKE int ncclCommInitAll(void** comms, int count, const int* devices) {
  for (int i = 0; i < count; ++i) comms[i] = reinterpret_cast<void*>(size_t(100 + devices[i]));
  return fake_init_result;
}
struct UniqueId {
  char bytes[128];
};
FAKE int ncclGetUniqueId(UniqueId* id) { return std::strcpy(id->bytes, "an id"), 0; }
FAKE int ncclCommInitRank(void** comm, int ranks, UniqueId id, int rank) {
  *comm = fake_context;
  Log(reinterpret_cast<void*>(size_t(rank)), std::strcmp(id.bytes, "an id") ? "wrong id" : "rank");
  fake_ranks = ranks;
  return fake_init_result;
}
FAKE int ncclCommGetAsyncError(void*, int* result) { return *result = fake_async_error, 0; }
FAKE int ncclCommAbort(void*) { return ++fake_aborted, 0; }
FAKE int ncclCommDestroy(void*) { return ++fake_destroyed, 0; }
FAKE int ncclGroupStart() { return ++fake_in_group, 0; }
FAKE int ncclGroupEnd() { return --fake_in_group, 0; }
FAKE int ncclAllReduce(const void* input, void* output, size_t count, int type, int, void* comm,
                       void* stream) {
  fake_reduced += fake_in_group;
  fake_last_comm = comm, fake_last_stream = stream, fake_last_type = type;
  Log(stream, "reduce");
  if (output != input) std::memcpy(output, input, count * (type == 7 ? 4 : 2));
  return fake_all_reduce_result;
}

FAKE int cuInit(unsigned) { return 0; }
FAKE int cuDevicePrimaryCtxRetain(void** context, int device) {
  return *context = reinterpret_cast<void*>(size_t(100 + device)), 0;
}
FAKE int cuCtxGetCurrent(void** context) { return *context = fake_context, 0; }
FAKE int cuCtxSetCurrent(void* context) { return fake_context = context, 0; }
FAKE int cuEventCreate(void** event, unsigned) { return *event = &fake_events, 0; }
FAKE int cuStreamCreateWithPriority(void** stream, unsigned, int) {
  return *stream = reinterpret_cast<void*>(size_t(1000)), 0;
}
FAKE int cuStreamWaitEvent(void* stream, void*, unsigned) { return Log(stream, "wait"), 0; }
FAKE int cuEventRecord(void*, void* stream) { return Log(stream, "record"), ++fake_events, 0; }
FAKE int cuEventQuery(void*) { return fake_event_result; }
