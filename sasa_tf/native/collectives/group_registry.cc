// The groups of this process, and the C functions by which Python creates and checks them.
#include <algorithm>
#include <map>
#include <sstream>
#include <utility>

#include "collectives/replica_group.h"
#include "export.h"

namespace sasa {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<int64_t, std::shared_ptr<ReplicaGroup>> groups;
};

Registry& Groups() {
  static auto* registry = new Registry();  // not destroyed while programs still run
  return *registry;
}

// Returns a string that stays valid until the next call in this thread.
const char* Return(std::string text) {
  static thread_local std::string* last = new std::string();
  *last = std::move(text);
  return last->c_str();
}

std::vector<std::string> Lines(const char* text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace

std::shared_ptr<ReplicaGroup> FindGroup(int64_t number) {
  std::lock_guard<std::mutex> lock(Groups().mutex);
  const auto found = Groups().groups.find(number);
  return found == Groups().groups.end() ? nullptr : found->second;
}

}  // namespace sasa

// Writes the identifier of a new group, of 128 bytes, for `sasa_tf_group_create` of all processes.
// Returns "", or an error message.
SASA_EXPORT const char* sasa_tf_group_id(const char* nccl_paths, char* id) {
  std::string error;
  const std::string text = sasa::MakeNcclGroupId(sasa::Lines(nccl_paths), error);
  std::copy(text.begin(), text.end(), id);
  return sasa::Return(error);
}

// Creates a group of replicas: on the GPUs with these CUDA numbers, or on the CPU if `gpus` is
// null. `id` is that of all processes of the group, which have `total` replicas, and those of this
// process begin with the number `first`; null for a single process. `nccl_paths` are separated by newlines. The time
// limits are in seconds, see TimeLimits. Returns "", or an error message.
SASA_EXPORT const char* sasa_tf_group_create(int64_t number, int32_t replicas, const int32_t* gpus,
                                             int32_t first, int32_t total, const char* id,
                                             const char* nccl_paths, double first_limit,
                                             double later_limit) {
  const sasa::TimeLimits limits = {sasa::TimeLimits::Seconds(first_limit),
                                   sasa::TimeLimits::Seconds(later_limit)};
  std::string error;
  std::shared_ptr<sasa::ReplicaGroup> group;
  if (gpus == nullptr) {
    group = sasa::MakeHostGroup(replicas, limits);
  } else {
    const sasa::Ranks ranks = {first, total,
                               id == nullptr ? std::string() : std::string(id, 128)};
    group = sasa::MakeNcclGroup({gpus, gpus + replicas}, ranks, sasa::Lines(nccl_paths), limits,
                                error);
  }
  if (group != nullptr) {
    std::lock_guard<std::mutex> lock(sasa::Groups().mutex);
    sasa::Groups().groups[number] = std::move(group);
  }
  return sasa::Return(error);
}

// Checks the progress of a group. Returns "", or why it failed.
SASA_EXPORT const char* sasa_tf_group_check(int64_t number) {
  const std::shared_ptr<sasa::ReplicaGroup> group = sasa::FindGroup(number);
  if (group == nullptr) return "";
  group->CheckProgress();
  return sasa::Return(group->Failure());
}

// Fails a group, so that none of its replicas waits for the others.
SASA_EXPORT void sasa_tf_group_abort(int64_t number, const char* reason) {
  if (const auto group = sasa::FindGroup(number)) group->Abort(reason);
}

// Removes a group. None of its programs may be running or start later.
SASA_EXPORT void sasa_tf_group_close(int64_t number) {
  std::shared_ptr<sasa::ReplicaGroup> group;
  {
    std::lock_guard<std::mutex> lock(sasa::Groups().mutex);
    const auto found = sasa::Groups().groups.find(number);
    if (found == sasa::Groups().groups.end()) return;
    group = std::move(found->second);
    sasa::Groups().groups.erase(found);
  }
}
