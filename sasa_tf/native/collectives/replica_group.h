// A group of replicas whose XLA programs all-reduce arrays.
//
// This header depends on neither TensorFlow nor XLA.
#ifndef SASA_TF_NATIVE_COLLECTIVES_REPLICA_GROUP_H_
#define SASA_TF_NATIVE_COLLECTIVES_REPLICA_GROUP_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "local_attention.h"

namespace sasa {

// One array of an all-reduce. The output may be the input.
struct ReduceArray {
  const void* input;
  void* output;
  int64_t elements;
  DType type;
};

// Which program of which replica calls. The same program has the same number on all replicas.
struct Caller {
  int replica;
  int64_t program;
};

// The longest time for which a replica waits for the others.
struct TimeLimits {
  using Seconds = std::chrono::duration<double>;
  Seconds first;  // until the first all-reduce of a program, which others may still compile
  Seconds later;
};

// Each replica calls AllReduce or Start from its own XLA program. All replicas must call them
// equally often, with arrays of the same types and sizes in the same order; anything else fails the
// group. A group that has failed stays so: every later call returns the first error.
class ReplicaGroup {
 public:
  using Clock = std::chrono::steady_clock;
  // Called once with "" or an error message, possibly before AllReduce returns.
  using Done = std::function<void(const std::string& error)>;

  // `first` is the number of this process's first replica, for messages.
  ReplicaGroup(int replicas, TimeLimits limits, int first = 0);
  virtual ~ReplicaGroup() = default;

  // Sums each array over the replicas. The program may continue when `done` is called: on a GPU
  // that is when the work is enqueued on `stream`, on the CPU when the outputs are written.
  void AllReduce(const Caller& caller, std::vector<ReduceArray> arrays, void* stream, Done done);

  // Starts an all-reduce that runs beside the program. Returns "" or an error message. The program
  // must not use the arrays until `Finish` with the same `slot`.
  std::string Start(const Caller& caller, int64_t slot, std::vector<ReduceArray> arrays,
                    void* stream);

  // Waits for an all-reduce that this replica has started. The arrays must be in the same memory.
  void Finish(const Caller& caller, int64_t slot, const std::vector<ReduceArray>& arrays,
              void* stream, Done done);

  // Returns "" or why the group failed.
  std::string Failure();

  // Fails the group, and ends all waiting, also of kernels on the devices.
  void Abort(const std::string& reason);

  // Aborts the group if an all-reduce has not completed for longer than the time limit. To be
  // called about once per second.
  virtual void CheckProgress() = 0;

 protected:
  virtual void Reduce(const Caller& caller, std::vector<ReduceArray> arrays, void* stream,
                      Done done) = 0;
  virtual std::string DoStart(const Caller& caller, int64_t slot, std::vector<ReduceArray> arrays,
                              void* stream) = 0;
  virtual void DoFinish(const Caller& caller, int64_t slot, void* stream, Done done) = 0;

  // Ends all waiting. Called once, after the failure is recorded.
  virtual void EndWaiting(const std::string& failure) = 0;

  int replicas() const { return static_cast<int>(next_call_.size()); }

  // Returns a replica's number among those of all processes, as text.
  std::string Number(int replica) const { return std::to_string(first_replica_ + replica); }

  // Records that all replicas have run an all-reduce of a program, so that none compiles it.
  void Completed(int64_t program);

  // Returns "", or the error if an all-reduce of a program has been waiting since `begin` for
  // longer than the time limit. `waiting` says who waits.
  std::string CheckTime(int64_t program, Clock::time_point begin, const std::string& waiting);

 private:
  // The arrays of one all-reduce, and who called it first.
  struct Call {
    std::string arrays;
    int first_replica;
    int arrived;
  };

  // Returns "", or why the call is an error, which then fails the group.
  std::string CheckCall(int replica, const std::vector<ReduceArray>& arrays);

  // Returns "" or how this call differs from that of another replica.
  std::string RecordCall(int replica, const std::vector<ReduceArray>& arrays);

  // Returns the replicas that have called less often than others, such as "1, 3"; "" if none.
  std::string LateReplicas();

  const TimeLimits limits_;
  const int first_replica_;
  std::mutex mutex_;  // of all below
  std::string failure_;
  std::vector<int64_t> next_call_;  // number of the next call of each replica
  std::deque<Call> calls_;          // that not all replicas have reached
  int64_t first_call_ = 0;          // number of calls_[0]
  std::set<int64_t> completed_;     // programs
  // For each replica, the outputs of the all-reduces that it has started, by slot.
  std::vector<std::map<int64_t, std::vector<const void*>>> started_;
};

// Returns a group of replicas on the CPU. Sums are taken in the order of the replicas.
std::shared_ptr<ReplicaGroup> MakeHostGroup(int replicas, TimeLimits limits);

// The replicas of this process among those of all processes, which all-reduce together.
struct Ranks {
  int first;             // of this process
  int total;             // of all processes
  std::string group_id;  // from MakeNcclGroupId of one process; "" for a single process
};

// Returns an identifier for a new group, which all of its processes must know; or an error message.
std::string MakeNcclGroupId(const std::vector<std::string>& nccl_paths, std::string& error);

// Returns a group of replicas on NVIDIA GPUs of this process, or null and an error message. Waits
// until all processes have called it.
//
// `gpus` are CUDA's device numbers. `nccl_paths` are libraries to find NCCL in, in this order.
std::shared_ptr<ReplicaGroup> MakeNcclGroup(const std::vector<int>& gpus, const Ranks& ranks,
                                            const std::vector<std::string>& nccl_paths,
                                            TimeLimits limits, std::string& error);

// The groups of this process by number. Returns null for an unknown number.
std::shared_ptr<ReplicaGroup> FindGroup(int64_t number);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_COLLECTIVES_REPLICA_GROUP_H_
