// All-reduce between replicas on the CPU: the last replica to arrive computes the sums.
#include <utility>

#include "collectives/replica_group.h"
#include "cpu/element_types.h"

namespace sasa {
namespace {

// One replica's part of an all-reduce.
struct Arrival {
  std::vector<ReduceArray> arrays;
  ReplicaGroup::Done done;  // null until the replica waits
};

// One all-reduce.
struct HostCall {
  std::vector<Arrival> arrivals;  // one for each replica
  int64_t program;
  ReplicaGroup::Clock::time_point begin;
  int num_arrived = 0;
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
  HostGroup(int replicas, TimeLimits limits)
      : ReplicaGroup(replicas, limits), next_(replicas), started_(replicas) {}

  void CheckProgress() override {
    int64_t program;
    Clock::time_point begin;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (calls_.empty()) return;
      program = calls_.front().program;
      begin = calls_.front().begin;
    }
    const std::string problem = CheckTime(program, begin, "");
    if (!problem.empty()) Abort(problem);
  }

 protected:
  void Reduce(const Caller& caller, std::vector<ReduceArray> arrays, void*, Done done) override {
    Arrive(caller, std::move(arrays), std::move(done));
  }

  std::string DoStart(const Caller& caller, int64_t slot, std::vector<ReduceArray> arrays,
                      void*) override {
    const int64_t number = Arrive(caller, std::move(arrays), nullptr);
    std::lock_guard<std::mutex> lock(mutex_);
    started_[caller.replica][slot] = number;
    return failure_;
  }

  void DoFinish(const Caller& caller, int64_t slot, void*, Done done) override {
    std::string failure;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const int64_t number = started_[caller.replica][slot];
      failure = failure_;
      if (failure.empty() && number >= first_) {
        calls_[number - first_].arrivals[caller.replica].done = std::move(done);
        return;
      }
    }
    done(failure);
  }

  void EndWaiting(const std::string& failure) override {
    std::vector<Done> waiting;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      failure_ = failure;
      // The sums of a call that all have reached are being computed: its thread ends the waiting.
      while (!calls_.empty() && calls_.back().num_arrived < replicas()) {
        TakeDone(calls_.back(), waiting);
        calls_.pop_back();
      }
    }
    for (const Done& done : waiting) done(failure);
  }

 private:
  // Adds a replica's part to its next all-reduce, and computes the sums if it is the last one.
  // Returns the all-reduce's number.
  int64_t Arrive(const Caller& caller, std::vector<ReduceArray> arrays, Done done) {
    std::string failure;
    int64_t number = 0;
    HostCall* call = nullptr;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      failure = failure_;
      if (failure.empty()) {
        number = next_[caller.replica]++;
        if (number - first_ == static_cast<int64_t>(calls_.size())) {
          calls_.push_back({std::vector<Arrival>(replicas()), caller.program, Clock::now()});
        }
        call = &calls_[number - first_];
        call->arrivals[caller.replica] = {std::move(arrays), std::move(done)};
        if (++call->num_arrived < replicas()) return number;
      }
    }
    if (call == nullptr) {
      if (done) done(failure);
      return number;
    }
    // It is the oldest one, because this replica has completed its part of all earlier ones.
    const std::vector<Arrival>& arrivals = call->arrivals;
    for (size_t i = 0; i < arrivals[0].arrays.size(); ++i) {
      DispatchDType(arrivals[0].arrays[i].type, [&](auto type) { Sum(type, arrivals, i); });
    }
    Completed(caller.program);
    std::vector<Done> waiting;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      TakeDone(*call, waiting);
      calls_.pop_front();
      ++first_;
    }
    for (const Done& done : waiting) done("");
    return number;
  }

  static void TakeDone(HostCall& call, std::vector<Done>& waiting) {
    for (Arrival& arrival : call.arrivals) {
      if (arrival.done) waiting.push_back(std::move(arrival.done));
    }
  }

  std::mutex mutex_;                                 // of all below
  std::deque<HostCall> calls_;                           // that are not complete
  int64_t first_ = 0;                                // number of calls_[0]
  std::vector<int64_t> next_;                        // number of each replica's next call
  std::vector<std::map<int64_t, int64_t>> started_;  // for each replica, numbers by slot
  std::string failure_;
};

}  // namespace

std::shared_ptr<ReplicaGroup> MakeHostGroup(int replicas, TimeLimits limits) {
  return std::make_shared<HostGroup>(replicas, limits);
}

}  // namespace sasa
