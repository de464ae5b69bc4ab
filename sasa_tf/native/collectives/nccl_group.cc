// All-reduce between GPUs of one process by NCCL, with one communicator for each replica.
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

// Reports since when a GPU has not completed an all-reduce. The host may be several steps ahead of
// the GPU. An event is recorded behind an all-reduce only if that of an earlier one has completed,
// so that one event is enough.
class ProgressMonitor {
 public:
  // Called after an all-reduce was enqueued. Returns a CUDA error.
  int Enqueued(const CudaFunctions& cuda, void* stream) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (event_ == nullptr) {
      int error = cuda.context_get_current(&context_);
      if (error == kCudaSuccess) error = cuda.event_create(&event_, kCudaEventDisableTiming);
      if (error != kCudaSuccess) return error;
    }
    if (pending_ && cuda.event_query(event_) == kCudaNotReady) return kCudaSuccess;
    pending_ = true;
    begin_ = ReplicaGroup::Clock::now();
    return cuda.event_record(event_, stream);
  }

  // Returns whether an all-reduce is pending, and sets `begin` to when it was enqueued.
  bool Pending(const CudaFunctions& cuda, ReplicaGroup::Clock::time_point& begin) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!pending_) return false;
    cuda.context_set_current(context_);
    pending_ = cuda.event_query(event_) == kCudaNotReady;
    begin = begin_;
    return pending_;
  }

 private:
  std::mutex mutex_;  // of all below
  CudaContext context_ = nullptr;
  CudaEvent event_ = nullptr;
  bool pending_ = false;
  ReplicaGroup::Clock::time_point begin_;
};

class NcclGroup : public ReplicaGroup {
 public:
  NcclGroup(int replicas, std::chrono::duration<double> timeout, const NcclFunctions& nccl,
            const CudaFunctions& cuda, std::vector<NcclComm> comms)
      : ReplicaGroup(replicas, timeout),
        nccl_(nccl),
        cuda_(cuda),
        comms_(std::move(comms)),
        monitors_(replicas) {}

  ~NcclGroup() override {
    if (!Failure().empty()) return;  // already aborted
    for (NcclComm comm : comms_) nccl_.comm_destroy(comm);
  }

  void CheckProgress() override {
    const std::string problem = FindProblem();
    if (!problem.empty()) Abort(problem);
  }

 protected:
  void Reduce(int replica, std::vector<ReduceArray> arrays, void* stream, Done done) override {
    const NcclComm comm = comms_[replica];
    std::string error = nccl_.Describe(nccl_.group_start());
    for (const ReduceArray& array : arrays) {
      if (!error.empty()) break;
      error = nccl_.Describe(nccl_.all_reduce(array.input, array.output, array.elements,
                                              TypeOf(array.type), kNcclSum, comm, stream));
    }
    const std::string end_error = nccl_.Describe(nccl_.group_end());
    if (error.empty()) error = end_error;
    if (error.empty()) {
      const int status = monitors_[replica].Enqueued(cuda_, stream);
      if (status != kCudaSuccess) error = "CUDA error " + std::to_string(status);
    }
    if (!error.empty()) {
      error = "replica " + std::to_string(replica) + ": " + error;
      Abort(error);
    }
    done(error);
  }

  // Frees the communicators, which ends their kernels. The group has failed, so no call starts.
  void EndWaiting(const std::string&) override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (NcclComm comm : comms_) nccl_.comm_abort(comm);
  }

 private:
  // Returns "" or why the replicas make no progress.
  std::string FindProblem() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!Failure().empty()) return "";
    for (int replica = 0; replica < replicas(); ++replica) {
      const std::string name = "replica " + std::to_string(replica);
      int result = kNcclSuccess;
      const int status = nccl_.comm_get_async_error(comms_[replica], &result);
      if (status != kNcclSuccess) result = status;
      if (result != kNcclSuccess && result != kNcclInProgress) {
        return name + ": " + nccl_.Describe(result);
      }
      Clock::time_point begin;
      if (monitors_[replica].Pending(cuda_, begin) && TimedOut(begin)) {
        return DescribeTimeout(name + " is waiting; ");
      }
    }
    return "";
  }

  const NcclFunctions nccl_;
  const CudaFunctions cuda_;
  const std::vector<NcclComm> comms_;
  std::vector<ProgressMonitor> monitors_;
  std::mutex mutex_;  // held while communicators are checked or freed
};

}  // namespace

std::shared_ptr<ReplicaGroup> MakeNcclGroup(const std::vector<int>& gpus,
                                            const std::vector<std::string>& nccl_paths,
                                            std::chrono::duration<double> timeout,
                                            std::string& error) {
  NcclFunctions nccl = {};
  CudaFunctions cuda = {};
  error = LoadNccl(nccl_paths, nccl);
  if (error.empty()) error = LoadCuda(cuda);
  if (!error.empty()) return nullptr;
  const int replicas = static_cast<int>(gpus.size());
  std::vector<NcclComm> comms(replicas);
  error = nccl.Describe(nccl.comm_init_all(comms.data(), replicas, gpus.data()));
  if (!error.empty()) return nullptr;
  return std::make_shared<NcclGroup>(replicas, timeout, nccl, cuda, std::move(comms));
}

}  // namespace sasa
