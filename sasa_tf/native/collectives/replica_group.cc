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

ReplicaGroup::ReplicaGroup(int replicas, std::chrono::duration<double> timeout)
    : timeout_(timeout), next_call_(replicas) {}

void ReplicaGroup::AllReduce(int replica, std::vector<ReduceArray> arrays, void* stream,
                             Done done) {
  std::string error = Failure();
  if (error.empty() && (replica < 0 || replica >= replicas())) {
    error = "replica " + std::to_string(replica) + " is not in this group of " +
            std::to_string(replicas()) + " replicas";
  }
  if (error.empty()) {
    error = RecordCall(replica, arrays);
    if (!error.empty()) Abort(error);
  }
  if (error.empty()) {
    Reduce(replica, std::move(arrays), stream, std::move(done));
  } else {
    done(error);
  }
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
    late += std::to_string(replica);
  }
  return late;
}

std::string ReplicaGroup::DescribeTimeout(const std::string& waiting) {
  const std::string late = LateReplicas();
  std::string text = "an all-reduce did not complete within " +
                     std::to_string(static_cast<int64_t>(timeout_.count())) + " s: " + waiting;
  text += late.empty() ? "all replicas have started it"
                       : "these replicas did not reach it: " + late +
                             ". Their programs failed, or are still being compiled";
  return text;
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
           std::to_string(number) + ", replica " + std::to_string(call.first_replica) + " has " +
           call.arrays + ", and replica " + std::to_string(replica) + " has " + description;
  }
  ++call.arrived;
  while (!calls_.empty() && calls_.front().arrived == replicas()) {
    calls_.pop_front();
    ++first_call_;
  }
  return "";
}

}  // namespace sasa
