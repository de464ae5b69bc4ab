// All-reduce between GPUs by NCCL, with one communicator for each replica.
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "collectives/nccl_functions.h"
#include "collectives/replica_group.h"

namespace sasa {
namespace {

int TypeOf(DType type) {
  switch (type) {
    case DType::kFloat32:
      return kNcclFloat32;
    case DType::kBfloat16:
      return kNcclBfloat16;
    case DType::kFloat16:
      return kNcclFloat16;
  }
  return -1;
}

std::string CudaError(int status) {
  return status == kCudaSuccess ? "" : "CUDA error " + std::to_string(status);
}

// Reports since when a GPU has made no progress with its all-reduces. The host may be many steps
// ahead of the GPU. There is an event behind each all-reduce, as long as there are not too many.
class ProgressMonitor {
 public:
  struct State {
    bool pending = false;               // an all-reduce is enqueued and not complete
    int64_t program = 0;                // the program of the oldest one
    ReplicaGroup::Clock::time_point begin;  // since when it is the oldest one
    std::vector<int64_t> completed;     // programs of those that completed since the last time
    int status = kCudaSuccess;
  };

  // Called after an all-reduce was enqueued. Returns a CUDA error.
  int Enqueued(const CudaFunctions& cuda, void* stream, int64_t program) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (context_ == nullptr) {
      const int status = cuda.context_get_current(&context_);
      if (status != kCudaSuccess) return status;
    }
    last_stream_ = stream;
    last_program_ = program;
    if (pending_.size() >= kMaxEvents) {
      const int status = RemoveCompleted(cuda);
      if (status != kCudaSuccess) return status;
    }
    is_last_recorded_ = pending_.size() < kMaxEvents;
    return is_last_recorded_ ? Record(cuda) : kCudaSuccess;
  }

  State Check(const CudaFunctions& cuda) {
    std::lock_guard<std::mutex> lock(mutex_);
    State state;
    if (pending_.empty()) return state;
    cuda.context_set_current(context_);
    state.status = RemoveCompleted(cuda);
    if (state.status == kCudaSuccess && pending_.empty() && !is_last_recorded_) {
      is_last_recorded_ = true;
      state.status = Record(cuda);
    }
    state.completed.swap(completed_);
    state.pending = !pending_.empty();
    if (state.pending) state.program = pending_.front().program;
    state.begin = begin_;
    return state;
  }

 private:
  struct Pending {
    CudaEvent event;
    int64_t program;
  };
  static constexpr size_t kMaxEvents = 256;

  // Records an event behind the last all-reduce.
  int Record(const CudaFunctions& cuda) {
    CudaEvent event = nullptr;
    if (free_.empty()) {
      const int status = cuda.event_create(&event, kCudaEventDisableTiming);
      if (status != kCudaSuccess) return status;
    } else {
      event = free_.back();
      free_.pop_back();
    }
    if (pending_.empty()) begin_ = ReplicaGroup::Clock::now();
    pending_.push_back({event, last_program_});
    return cuda.event_record(event, last_stream_);
  }

  int RemoveCompleted(const CudaFunctions& cuda) {
    while (!pending_.empty()) {
      const int status = cuda.event_query(pending_.front().event);
      if (status == kCudaNotReady) break;
      if (status != kCudaSuccess) return status;
      const int64_t program = pending_.front().program;
      if (completed_.empty() || completed_.back() != program) completed_.push_back(program);
      free_.push_back(pending_.front().event);
      pending_.pop_front();
      begin_ = ReplicaGroup::Clock::now();
    }
    return kCudaSuccess;
  }

  std::mutex mutex_;  // of all below
  CudaContext context_ = nullptr;
  std::deque<Pending> pending_;  // the oldest first
  std::vector<CudaEvent> free_;
  std::vector<int64_t> completed_;
  bool is_last_recorded_ = true;
  void* last_stream_ = nullptr;
  int64_t last_program_ = 0;
  ReplicaGroup::Clock::time_point begin_;
};

// A replica's stream for all-reduces that run beside its program. It is never destroyed.
class OwnStream {
 public:
  // Makes the stream wait for what is enqueued on the program's stream. Returns a CUDA error.
  int Fork(const CudaFunctions& cuda, void* program_stream) {
    int error = kCudaSuccess;
    if (stream_ == nullptr) {
      error = cuda.stream_create(&stream_, kCudaStreamNonBlocking, kCudaHighestPriority);
      if (error == kCudaSuccess) error = cuda.event_create(&ready_, kCudaEventDisableTiming);
    }
    if (error == kCudaSuccess) error = cuda.event_record(ready_, program_stream);
    return error == kCudaSuccess ? cuda.stream_wait_event(stream_, ready_, 0) : error;
  }

  // Remembers the end of what is enqueued on this stream.
  int Mark(const CudaFunctions& cuda, int64_t slot) {
    CudaEvent& event = marks_[slot];
    int error = kCudaSuccess;
    if (event == nullptr) error = cuda.event_create(&event, kCudaEventDisableTiming);
    return error == kCudaSuccess ? cuda.event_record(event, stream_) : error;
  }

  // Makes the program's stream wait for the mark.
  int Join(const CudaFunctions& cuda, int64_t slot, void* program_stream) {
    return cuda.stream_wait_event(program_stream, marks_[slot], 0);
  }

  void* stream() const { return stream_; }

 private:
  CudaStream stream_ = nullptr;
  CudaEvent ready_ = nullptr;
  std::map<int64_t, CudaEvent> marks_;
};

class NcclGroup : public ReplicaGroup {
 public:
  NcclGroup(int first, TimeLimits limits, const NcclFunctions& nccl, const CudaFunctions& cuda,
            std::vector<NcclComm> comms)
      : ReplicaGroup(static_cast<int>(comms.size()), limits, first),
        nccl_(nccl),
        cuda_(cuda),
        comms_(std::move(comms)),
        monitors_(comms_.size()),
        streams_(comms_.size()) {}

  ~NcclGroup() override {
    if (!Failure().empty()) return;  // already aborted
    for (NcclComm comm : comms_) nccl_.comm_destroy(comm);
  }

  void CheckProgress() override {
    const std::string problem = FindProblem();
    if (!problem.empty()) Abort(problem);
  }

 protected:
  void Reduce(const Caller& caller, std::vector<ReduceArray> arrays, void* stream,
              Done done) override {
    done(AbortOn(caller, Enqueue(caller, arrays, stream)));
  }

  std::string DoStart(const Caller& caller, int64_t slot, std::vector<ReduceArray> arrays,
                      void* stream) override {
    OwnStream& own = streams_[caller.replica];
    std::string error = CudaError(own.Fork(cuda_, stream));
    if (error.empty()) error = Enqueue(caller, arrays, own.stream());
    if (error.empty()) error = CudaError(own.Mark(cuda_, slot));
    return AbortOn(caller, error);
  }

  void DoFinish(const Caller& caller, int64_t slot, void* stream, Done done) override {
    done(AbortOn(caller, CudaError(streams_[caller.replica].Join(cuda_, slot, stream))));
  }

  // Frees the communicators, which ends their kernels. The group has failed, so no call starts.
  void EndWaiting(const std::string&) override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (NcclComm comm : comms_) nccl_.comm_abort(comm);
  }

 private:
  std::string Enqueue(const Caller& caller, const std::vector<ReduceArray>& arrays, void* stream) {
    const NcclComm comm = comms_[caller.replica];
    std::string error = nccl_.Describe(nccl_.group_start());
    for (const ReduceArray& array : arrays) {
      if (!error.empty()) break;
      error = nccl_.Describe(nccl_.all_reduce(array.input, array.output, array.elements,
                                              TypeOf(array.type), kNcclSum, comm, stream));
    }
    const std::string end_error = nccl_.Describe(nccl_.group_end());
    if (error.empty()) error = end_error;
    if (!error.empty()) return error;
    return CudaError(monitors_[caller.replica].Enqueued(cuda_, stream, caller.program));
  }

  // Fails the group if there is an error, and returns it with the replica's number.
  std::string AbortOn(const Caller& caller, const std::string& error) {
    if (error.empty()) return "";
    const std::string text = "replica " + Number(caller.replica) + ": " + error;
    Abort(text);
    return text;
  }

  // Returns "" or why the replicas make no progress.
  std::string FindProblem() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!Failure().empty()) return "";
    for (int replica = 0; replica < replicas(); ++replica) {
      const std::string name = "replica " + Number(replica);
      int result = kNcclSuccess;
      const int status = nccl_.comm_get_async_error(comms_[replica], &result);
      if (status != kNcclSuccess) result = status;
      if (result != kNcclSuccess && result != kNcclInProgress) {
        return name + ": " + nccl_.Describe(result);
      }
      const ProgressMonitor::State state = monitors_[replica].Check(cuda_);
      for (int64_t program : state.completed) Completed(program);
      if (state.status != kCudaSuccess) return name + ": " + CudaError(state.status);
      if (!state.pending) continue;
      const std::string problem = CheckTime(state.program, state.begin, name + " is waiting; ");
      if (!problem.empty()) return problem;
    }
    return "";
  }

  const NcclFunctions nccl_;
  const CudaFunctions cuda_;
  const std::vector<NcclComm> comms_;
  std::vector<ProgressMonitor> monitors_;
  std::vector<OwnStream> streams_;
  std::mutex mutex_;  // held while communicators are checked or freed
};

// Connects the replicas of this process with those of the others. Returns "" or an error message.
std::string Connect(const NcclFunctions& nccl, const CudaFunctions& cuda,
                    const std::vector<int>& gpus, const Ranks& ranks,
                    std::vector<NcclComm>& comms) {
  NcclUniqueId id = {};
  ranks.group_id.copy(id.bytes, sizeof(id.bytes));
  std::string error = CudaError(cuda.init(0));
  CudaContext before = nullptr;
  cuda.context_get_current(&before);
  if (error.empty()) error = nccl.Describe(nccl.group_start());
  if (!error.empty()) return error;
  for (size_t i = 0; i < gpus.size() && error.empty(); ++i) {
    // NCCL takes the current context. TensorFlow runs in the primary one too.
    CudaContext context = nullptr;
    error = CudaError(cuda.primary_context_retain(&context, gpus[i]));
    if (error.empty()) error = CudaError(cuda.context_set_current(context));
    if (!error.empty()) break;
    const int rank = ranks.first + static_cast<int>(i);
    error = nccl.Describe(nccl.comm_init_rank(&comms[i], ranks.total, id, rank));
  }
  const std::string end_error = nccl.Describe(nccl.group_end());
  cuda.context_set_current(before);
  return error.empty() ? end_error : error;
}

}  // namespace

std::string MakeNcclGroupId(const std::vector<std::string>& nccl_paths, std::string& error) {
  NcclFunctions nccl = {};
  NcclUniqueId id;
  error = LoadNccl(nccl_paths, nccl);
  if (error.empty()) error = nccl.Describe(nccl.get_unique_id(&id));
  return error.empty() ? std::string(id.bytes, sizeof(id.bytes)) : "";
}

std::shared_ptr<ReplicaGroup> MakeNcclGroup(const std::vector<int>& gpus, const Ranks& ranks,
                                            const std::vector<std::string>& nccl_paths,
                                            TimeLimits limits, std::string& error) {
  NcclFunctions nccl = {};
  CudaFunctions cuda = {};
  error = LoadNccl(nccl_paths, nccl);
  if (error.empty()) error = LoadCuda(cuda);
  if (!error.empty()) return nullptr;
  std::vector<NcclComm> comms(gpus.size());
  if (ranks.group_id.empty()) {
    const int replicas = static_cast<int>(gpus.size());
    error = nccl.Describe(nccl.comm_init_all(comms.data(), replicas, gpus.data()));
  } else {
    error = Connect(nccl, cuda, gpus, ranks, comms);
  }
  if (!error.empty()) return nullptr;
  return std::make_shared<NcclGroup>(ranks.first, limits, nccl, cuda, std::move(comms));
}

}  // namespace sasa
