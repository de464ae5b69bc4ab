// Shared memory of the emulated GPU, and cp.async.
#include <link.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "scheduler_state.h"

namespace emulation {
namespace {

constexpr int kNan = 0xff;                // a byte of NaN in every type
constexpr uint32_t kFirstAddress = 1024;  // lower addresses are reserved by the system

std::vector<char*>& DynamicArrays() {
  static auto* arrays = new std::vector<char*>;
  return *arrays;
}

// The program's thread-local memory, which is the shared memory that kernels declare with a size.
std::pair<char*, size_t> ThreadLocalMemory() {
  std::pair<char*, size_t> found = {nullptr, 0};
  const auto visit = [](dl_phdr_info* info, size_t, void* result) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      if (info->dlpi_phdr[i].p_type == PT_TLS) {
        *static_cast<std::pair<char*, size_t>*>(result) = {static_cast<char*>(info->dlpi_tls_data),
                                                           info->dlpi_phdr[i].p_memsz};
      }
    }
    return 1;  // stop after the first, the program
  };
  dl_iterate_phdr(visit, &found);
  return found;
}

}  // namespace

DynamicShared::DynamicShared(void* first) { DynamicArrays().push_back(static_cast<char*>(first)); }

void PrepareSharedMemory() {
  const int bytes = GpuState().shared_bytes;
  std::sort(DynamicArrays().begin(), DynamicArrays().end());
  for (char* array : DynamicArrays()) {
    std::memset(array, kNan, kMaxSharedBytes);
    ASAN_POISON_MEMORY_REGION(array + bytes, kMaxSharedBytes - bytes);
  }
}

void PoisonSharedMemory() {
  static const std::pair<char*, size_t> all = ThreadLocalMemory();
  const int bytes = GpuState().shared_bytes;
  char* from = all.first;
  for (char* array : DynamicArrays()) {
    if (from != nullptr) std::memset(from, kNan, array - from);
    std::memset(array, kNan, bytes);
    if (from != nullptr) from = array + kMaxSharedBytes;
  }
  if (from != nullptr) std::memset(from, kNan, all.first + all.second - from);
}

// Fails if a CTA has written past the end of its dynamic shared memory.
void CheckSharedMemoryBounds() {
  const int bytes = GpuState().shared_bytes, count = kMaxSharedBytes - bytes;
  for (const char* array : DynamicArrays()) {
    ASAN_UNPOISON_MEMORY_REGION(array + bytes, count);
    const char* end = array + bytes;
    if (count == 0 ||
        (*end == static_cast<char>(kNan) && std::memcmp(end, end + 1, count - 1) == 0)) {
      continue;
    }
    int offset = 0;
    while (end[offset] == static_cast<char>(kNan)) ++offset;
    Fail("a CTA with %d bytes of dynamic shared memory wrote at byte %d", bytes, bytes + offset);
  }
}

uint32_t SmemAddressOf(const void* pointer) {
  const std::vector<char*>& arrays = DynamicArrays();
  for (size_t i = 0; i < arrays.size(); ++i) {
    const intptr_t offset = static_cast<const char*>(pointer) - arrays[i];
    if (offset >= 0 && offset <= GpuState().shared_bytes) {
      return static_cast<uint32_t>((i << 20) + kFirstAddress + offset);
    }
  }
  Fail("SmemAddress of memory outside the CTA's dynamic shared memory");
}

char* ResolveSmem(const char* name, SourceLocation location, uint32_t address, int bytes,
                  int alignment) {
  const int64_t offset = static_cast<int64_t>(address & 0xfffff) - kFirstAddress;
  const std::vector<char*>& arrays = DynamicArrays();
  const size_t index = address >> 20;
  if (index >= arrays.size() || offset < 0 || offset + bytes > GpuState().shared_bytes) {
    Fail("%s at %s:%d accesses byte %ld of %d bytes of shared memory", name, location.file,
         location.line, static_cast<long>(offset), GpuState().shared_bytes);
  }
  if (offset % alignment != 0) {
    Fail("%s at %s:%d: byte %ld of shared memory is not a multiple of %d", name, location.file,
         location.line, static_cast<long>(offset), alignment);
  }
  return arrays[index] + offset;
}

void StartCpAsync(const char* name, SourceLocation location, uint32_t smem, const void* global,
                  int bytes, int size) {
  State& state = GpuState();
  Fiber& fiber = state.fibers[state.current];
  char* target = ResolveSmem(name, location, smem, size, size);
  if (bytes > 0) {
    if (reinterpret_cast<uintptr_t>(global) % size != 0) {
      Fail("%s at %s:%d from %p, which is not a multiple of %d", name, location.file, location.line,
           global, size);
    }
    // Access the source here, so that an invalid address is reported at the copy and not at the
    // wait.
    fiber.last = location;
    const volatile char* first = static_cast<const char*>(global);
    static_cast<void>(first[0]), static_cast<void>(first[bytes - 1]);
  }
  if (fiber.copies.empty()) fiber.copies.emplace_back();
  std::memset(target, kNan, size);
  fiber.copies.back().push_back({target, global, bytes, size - bytes});
}

void CommitCpAsyncGroup() {
  State& state = GpuState();
  std::deque<CpAsyncGroup>& copies = state.fibers[state.current].copies;
  if (copies.empty()) copies.emplace_back();
  copies.emplace_back();
}

void WaitCpAsyncGroups(int max_pending) {
  State& state = GpuState();
  std::deque<CpAsyncGroup>& copies = state.fibers[state.current].copies;
  // The last group is not committed and stays.
  while (static_cast<int>(copies.size()) > max_pending + 1) {
    for (const CpAsyncCopy& copy : copies.front()) {
      std::memcpy(copy.to, copy.from, copy.bytes);
      std::memset(copy.to + copy.bytes, 0, copy.zeros);
    }
    copies.pop_front();
  }
}

}  // namespace emulation
