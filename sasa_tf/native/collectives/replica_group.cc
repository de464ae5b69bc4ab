#include "collectives/replica_group.h"

#include <algorithm>
#include <utility>

namespace sasa {
namespace {

std::string Describe(const std::vector<ReduceArray>& arrays) {
  constexpr const char* kNames[] = {"float32", "bfloat16", "float16"};
  std::string text;
  for (const ReduceArray& array : arrays) {
    if (!text.empty()) text += ", ";
    text += kNames[static_cast<int>(array.type)];
    text += "[" + std::to_string(array.elements) + "]";
  }
  constexpr size_t kMaxLength = 200;
  if (text.size() > kMaxLength) {
    text = text.substr(0, kMaxLength) + "... (" + std::to_string(arrays.size()) + " arrays, hash " +
           std::to_string(std::hash<std::string>()(text)) + ")";
  }
  return text;
}

}  // namespace

ReplicaGroup::ReplicaGroup(int replicas, TimeLimits limits, int first)
    : limits_(limits), first_replica_(first), next_call_(replicas), started_(replicas) {}

void ReplicaGroup::AllReduce(const Caller& caller, std::vector<ReduceArray> arrays, void* stream,
                             Done done) {
  const std::string error = CheckCall(caller.replica, arrays);
  if (!error.empty()) return done(error);
  Reduce(caller, std::move(arrays), stream, std::move(done));
}

std::string ReplicaGroup::Start(const Caller& caller, int64_t slot, std::vector<ReduceArray> arrays,
                                void* stream) {
  const std::string error = CheckCall(caller.replica, arrays);
  if (!error.empty()) return error;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<const void*>& outputs = started_[caller.replica][slot];
    outputs.clear();
    for (const ReduceArray& array : arrays) outputs.push_back(array.output);
  }
  return DoStart(caller, slot, std::move(arrays), stream);
}

void ReplicaGroup::Finish(const Caller& caller, int64_t slot,
                          const std::vector<ReduceArray>& arrays, void* stream, Done done) {
  std::string error = Failure();
  if (error.empty()) {
    std::lock_guard<std::mutex> lock(mutex_);
    const std::vector<const void*>& outputs = started_[caller.replica][slot];
    bool same = outputs.size() == arrays.size();
    for (size_t i = 0; same && i < arrays.size(); ++i) {
      same = arrays[i].input == outputs[i] && arrays[i].output == outputs[i];
    }
    if (!same) error = "XLA has copied an array while it was being all-reduced";
  }
  if (!error.empty()) {
    Abort(error);
    return done(error);
  }
  DoFinish(caller, slot, stream, std::move(done));
}

std::string ReplicaGroup::CheckCall(int replica, const std::vector<ReduceArray>& arrays) {
  std::string error = Failure();
  if (!error.empty()) return error;
  if (replica < 0 || replica >= replicas()) {
    return "replica " + std::to_string(replica) + " is not in this group of " +
           std::to_string(replicas()) + " replicas";
  }
  error = RecordCall(replica, arrays);
  if (!error.empty()) Abort(error);
  return error;
}

std::string ReplicaGroup::Failure() {
  std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void ReplicaGroup::Abort(const std::string& reason) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.empty()) return;
    failure_ = reason;
  }
  EndWaiting(reason);
}

std::string ReplicaGroup::LateReplicas() {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t last = *std::max_element(next_call_.begin(), next_call_.end());
  std::string late;
  for (int replica = 0; replica < replicas(); ++replica) {
    if (next_call_[replica] == last) continue;
    if (!late.empty()) late += ", ";
    late += Number(replica);
  }
  return late;
}

void ReplicaGroup::Completed(int64_t program) {
  std::lock_guard<std::mutex> lock(mutex_);
  completed_.insert(program);
}

std::string ReplicaGroup::CheckTime(int64_t program, Clock::time_point begin,
                                    const std::string& waiting) {
  TimeLimits::Seconds limit;
  bool first;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    first = completed_.count(program) == 0;
    limit = first ? limits_.first : limits_.later;
  }
  if (Clock::now() - begin <= limit) return "";
  const std::string late = LateReplicas();
  std::string text = "an all-reduce did not complete within " +
                     std::to_string(static_cast<int64_t>(limit.count())) + " s: " + waiting;
  if (late.empty()) return text + "all replicas of this process have started it";
  return text + "these replicas did not reach it: " + late +
         (first ? ". Their programs failed, or are still being compiled" : ". Their programs failed");
}

std::string ReplicaGroup::RecordCall(int replica, const std::vector<ReduceArray>& arrays) {
  const std::string description = Describe(arrays);
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t number = next_call_[replica]++;
  const size_t position = static_cast<size_t>(number - first_call_);
  if (position == calls_.size()) calls_.push_back({description, replica, 0});
  Call& call = calls_[position];
  if (call.arrays != description) {
    return "all replicas must all-reduce the same arrays in the same order; in all-reduce number " +
           std::to_string(number) + ", replica " + Number(call.first_replica) + " has " + call.arrays +
           ", and replica " + Number(replica) + " has " + description;
  }
  ++call.arrived;
  while (!calls_.empty() && calls_.front().arrived == replicas()) {
    calls_.pop_front();
    ++first_call_;
  }
  return "";
}

}  // namespace sasa
