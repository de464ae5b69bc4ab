// All-reduce between replicas on the CPU: the last replica to arrive computes the sums.
#include <utility>

#include "collectives/replica_group.h"
#include "cpu/element_types.h"

namespace sasa {
namespace {

struct Arrival {
  std::vector<ReduceArray> arrays;
  ReplicaGroup::Done done;
};

// Writes the sum of one array over the replicas to all outputs. An output may be an input, because
// each element is read from all inputs before it is written.
template <typename Type>
void Sum(Type, const std::vector<Arrival>& arrivals, size_t index) {
  using Stored = typename Type::Stored;
  const int64_t elements = arrivals[0].arrays[index].elements;
  for (int64_t i = 0; i < elements; ++i) {
    float sum = 0;
    for (const Arrival& arrival : arrivals) {
      sum += Type::Load(static_cast<const Stored*>(arrival.arrays[index].input)[i]);
    }
    for (const Arrival& arrival : arrivals) {
      static_cast<Stored*>(arrival.arrays[index].output)[i] = Type::Round(sum);
    }
  }
}

class HostGroup : public ReplicaGroup {
 public:
  HostGroup(int replicas, std::chrono::duration<double> timeout)
      : ReplicaGroup(replicas, timeout), arrivals_(replicas) {}

  void CheckProgress() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (num_arrived_ == 0 || !TimedOut(first_arrival_)) return;
    }
    Abort(DescribeTimeout(""));
  }

 protected:
  void Reduce(int replica, std::vector<ReduceArray> arrays, void*, Done done) override {
    std::vector<Arrival> arrivals(replicas());
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_.empty()) {
        arrivals.clear();
      } else {
        if (num_arrived_++ == 0) first_arrival_ = Clock::now();
        arrivals_[replica] = {std::move(arrays), std::move(done)};
        if (num_arrived_ < replicas()) return;
        // Before any replica continues, and arrives at the next all-reduce.
        arrivals.swap(arrivals_);
        num_arrived_ = 0;
      }
    }
    if (arrivals.empty()) return done(failure_);
    for (size_t i = 0; i < arrivals[0].arrays.size(); ++i) {
      DispatchDType(arrivals[0].arrays[i].type, [&](auto type) { Sum(type, arrivals, i); });
    }
    for (const Arrival& arrival : arrivals) arrival.done("");
  }

  void EndWaiting(const std::string& failure) override {
    std::vector<Arrival> arrivals(replicas());
    {
      std::lock_guard<std::mutex> lock(mutex_);
      failure_ = failure;
      arrivals.swap(arrivals_);
      num_arrived_ = 0;
    }
    for (const Arrival& arrival : arrivals) {
      if (arrival.done) arrival.done(failure);
    }
  }

 private:
  std::mutex mutex_;               // of all below
  std::vector<Arrival> arrivals_;  // one for each replica
  int num_arrived_ = 0;
  Clock::time_point first_arrival_;
  std::string failure_;
};

}  // namespace

std::shared_ptr<ReplicaGroup> MakeHostGroup(int replicas, std::chrono::duration<double> timeout) {
  return std::make_shared<HostGroup>(replicas, timeout);
}

}  // namespace sasa
