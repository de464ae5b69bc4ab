// A group of replicas of one process whose XLA programs all-reduce arrays.
//
// This header depends on neither TensorFlow nor XLA.
#ifndef SASA_TF_NATIVE_COLLECTIVES_REPLICA_GROUP_H_
#define SASA_TF_NATIVE_COLLECTIVES_REPLICA_GROUP_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
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

// Each replica calls AllReduce from its own XLA program. All replicas must call it equally often,
// with arrays of the same types and sizes in the same order; anything else fails the group. A group
// that has failed stays so: every later call returns the first error.
class ReplicaGroup {
 public:
  using Clock = std::chrono::steady_clock;
  // Called once with "" or an error message, possibly before AllReduce returns.
  using Done = std::function<void(const std::string& error)>;

  ReplicaGroup(int replicas, std::chrono::duration<double> timeout);
  virtual ~ReplicaGroup() = default;

  // Sums each array over the replicas. The program may continue when `done` is called: on a GPU
  // that is when the work is enqueued on `stream`, on the CPU when the outputs are written.
  void AllReduce(int replica, std::vector<ReduceArray> arrays, void* stream, Done done);

  // Returns "" or why the group failed.
  std::string Failure();

  // Fails the group, and ends all waiting, also of kernels on the devices.
  void Abort(const std::string& reason);

  // Aborts the group if an all-reduce has not completed for longer than the time limit. To be
  // called about once per second.
  virtual void CheckProgress() = 0;

 protected:
  virtual void Reduce(int replica, std::vector<ReduceArray> arrays, void* stream, Done done) = 0;

  // Ends all waiting. Called once, after the failure is recorded.
  virtual void EndWaiting(const std::string& failure) = 0;

  int replicas() const { return static_cast<int>(next_call_.size()); }

  // Returns the replicas that have called less often than others, such as "1, 3"; "" if none.
  std::string LateReplicas();

  // Whether the time limit has passed since `begin`.
  bool TimedOut(Clock::time_point begin) const { return Clock::now() - begin > timeout_; }
  std::string DescribeTimeout(const std::string& waiting);

 private:
  // The arrays of one all-reduce, and who called it first.
  struct Call {
    std::string arrays;
    int first_replica;
    int arrived;
  };

  // Returns "" or how this call differs from that of another replica.
  std::string RecordCall(int replica, const std::vector<ReduceArray>& arrays);

  const std::chrono::duration<double> timeout_;
  std::mutex mutex_;  // of all below
  std::string failure_;
  std::vector<int64_t> next_call_;  // number of the next call of each replica
  std::deque<Call> calls_;          // that not all replicas have reached
  int64_t first_call_ = 0;          // number of calls_[0]
};

// Returns a group of replicas on the CPU. Sums are taken in the order of the replicas.
std::shared_ptr<ReplicaGroup> MakeHostGroup(int replicas, std::chrono::duration<double> timeout);

// Returns a group of replicas on NVIDIA GPUs of this process, or null and an error message.
//
// `gpus` are CUDA's device numbers. `nccl_paths` are libraries to find NCCL in, in this order.
std::shared_ptr<ReplicaGroup> MakeNcclGroup(const std::vector<int>& gpus,
                                            const std::vector<std::string>& nccl_paths,
                                            std::chrono::duration<double> timeout,
                                            std::string& error);

// The groups of this process by number. Returns null for an unknown number.
std::shared_ptr<ReplicaGroup> FindGroup(int64_t number);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_COLLECTIVES_REPLICA_GROUP_H_
