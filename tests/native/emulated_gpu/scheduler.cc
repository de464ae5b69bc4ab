#include "scheduler.h"

#include <link.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(from, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(from, bytes)
#endif

uint3 threadIdx, blockIdx, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};

namespace emulation {

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = 512 << 10;
#else
constexpr size_t kStackBytes = 128 << 10;
#endif
constexpr size_t kPage = 4096;
constexpr int kPoison = 0xff;             // bytes of NaN
constexpr uint32_t kFirstAddress = 1024;  // of shared memory; those below are the system's

struct Copy {
  char* to;
  const void* from;
  int bytes, zeros;
};

// Copies that a thread waits for at once.
using Group = std::vector<Copy>;

struct Fiber {
  char* stack = nullptr;  // its lowest byte
#ifdef __x86_64__
  void* top = nullptr;  // of its stack, while another runs
#else
  ucontext_t state;
#endif
  // AddressSanitizer's.
  void* fake_stack = nullptr;
  const Meeting* meeting = nullptr;
  void* operands = nullptr;
  const Site* barrier = nullptr;
  Site last = {};  // where it waited or copied last
  bool returned = false;
  std::deque<Group> copies;  // the last is not yet committed
};

struct Warp {
  unsigned runnable = 0, returned = 0;
  struct Waiting {
    unsigned mask, arrived;
    int first;  // lane
  };
  std::vector<Waiting> meetings;
  const Site* barrier = nullptr;  // that lanes are at
  int barrier_lane = 0;           // the first of them
};

struct State {
  Fiber fibers[kMostThreads], system;
  Warp warps[kMostThreads / kWarp];
  unsigned live_warps = 0;  // that have runnable lanes
  int current = -1, warp = 0;
  int returned = 0, at_barrier = 0;
  uint64_t random = 0;
  uint64_t stay = 0;  // a warp goes on where a random number has none of these bits
  void (*thread)(void*) = nullptr;
  void* context = nullptr;
  int shared_bytes = 0;
};

State& Now() {
  static State* state = new State;
  return *state;
}

std::vector<char*>& SharedArrays() {
  static auto* arrays = new std::vector<char*>;
  return *arrays;
}

uint64_t Random() {
  uint64_t& x = Now().random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x * 0x2545f4914f6cdd1d >> 16;
}

#ifdef __x86_64__
__attribute__((naked, noinline)) void SwitchStacks(void** /*from: rdi*/, void* /*to: rsi*/) {
  asm("pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15;"
      "movq %rsp, (%rdi); movq %rsi, %rsp;"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx; ret");
}
#endif

#ifdef __SANITIZE_ADDRESS__
// Of the program's own stack; the first switch tells.
const void* system_bottom;
size_t system_bytes;
#endif

// Follows each switch, in the fiber that it led to.
void Arrive([[maybe_unused]] Fiber& own) {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(own.fake_stack, &bottom, &bytes);
  if (system_bytes == 0) {
    system_bottom = bottom;
    system_bytes = bytes;
  }
#endif
}

void Switch(Fiber& from, Fiber& to, [[maybe_unused]] bool forever) {
#ifdef __SANITIZE_ADDRESS__
  const bool home = to.stack == nullptr;
  __sanitizer_start_switch_fiber(forever ? nullptr : &from.fake_stack,
                                 home ? system_bottom : to.stack,
                                 home ? system_bytes : kStackBytes);
#endif
#ifdef __x86_64__
  SwitchStacks(&from.top, to.top);
#else
  swapcontext(&from.state, &to.state);
#endif
  Arrive(from);
}

// One of the bits, as a random number says.
int OneOf(unsigned bits, int random) {
  const int start = random & 31;
  const unsigned rotated = bits >> start | (start ? bits << (32 - start) : 0);
  return (start + __builtin_ctz(rotated)) % 32;
}

// Makes one of those that can run the current one.
void Choose() {
  State& now = Now();
  const uint64_t random = Random();
  if (!(now.live_warps >> now.warp & 1) || (random & now.stay) == 0) {
    now.warp = OneOf(now.live_warps, random >> 32);
  }
  Warp& warp = now.warps[now.warp];
  const int lane = OneOf(warp.runnable, random >> 40);
  warp.runnable &= ~(1u << lane);
  if (warp.runnable == 0) now.live_warps &= ~(1u << now.warp);
  threadIdx.x = now.current = now.warp * kWarp + lane;
}

// Lets another thread of the block run, or none if all have returned.
void Yield(bool forever) {
  State& now = Now();
  Fiber& from = now.fibers[now.current];
  if (now.live_warps == 0) {
    if (now.returned < static_cast<int>(blockDim.x)) Fail("no thread can go on");
    now.current = -1;
    Switch(from, now.system, forever);
    return;
  }
  Choose();
  Fiber& to = now.fibers[now.current];
  if (&to != &from) Switch(from, to, forever);
}

void Wake(int warp, unsigned lanes) {
  State& now = Now();
  now.warps[warp].runnable |= lanes;
  if (lanes) now.live_warps |= 1u << warp;
}

// Names in different source files are the same only by their letters.
bool Same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }
bool Same(const Site& a, const Site& b) { return a.line == b.line && Same(a.file, b.file); }

// Holds the meeting if all that it waits for have arrived.
void Hold(int warp, size_t index) {
  State& now = Now();
  Warp& w = now.warps[warp];
  const Warp::Waiting waiting = w.meetings[index];
  if (waiting.arrived != (waiting.mask & ~w.returned)) return;
  Fiber* fibers = now.fibers + warp * kWarp;
  const Meeting& meeting = *fibers[waiting.first].meeting;
  if (meeting.whole && waiting.arrived != ~0u) {
    Fail("lanes %08x of its warp have returned, and the others are at %s, %s:%d", w.returned,
         meeting.name, meeting.site.file, meeting.site.line);
  }
  void* all[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) {
    all[lane] = waiting.arrived >> lane & 1 ? fibers[lane].operands : nullptr;
  }
  if (meeting.act != nullptr) meeting.act(meeting.context, all);
  for (int lane = 0; lane < kWarp; ++lane) {
    if (waiting.arrived >> lane & 1) fibers[lane].meeting = nullptr;
  }
  w.meetings.erase(w.meetings.begin() + index);
  Wake(warp, waiting.arrived);
}

void ReleaseBarrier() {
  State& now = Now();
  const int live = static_cast<int>(blockDim.x) - now.returned;
  if (now.at_barrier == 0 || now.at_barrier < live) return;
  for (unsigned i = 0; i < blockDim.x; ++i) {
    if (now.fibers[i].returned) continue;
    now.fibers[i].barrier = nullptr;
    Wake(i / kWarp, 1u << i % kWarp);
  }
  for (Warp& warp : now.warps) warp.barrier = nullptr;
  now.at_barrier = 0;
}

void Main() {
  State& now = Now();
  Arrive(now.fibers[now.current]);
  now.thread(now.context);
  Fiber& own = now.fibers[now.current];
  own.returned = true;
  ++now.returned;
  const int warp = now.current / kWarp;
  Warp& w = now.warps[warp];
  w.returned |= 1u << now.current % kWarp;
  for (size_t i = w.meetings.size(); i-- > 0;) Hold(warp, i);
  ReleaseBarrier();
  Yield(true);
  std::abort();
}

void Prepare(Fiber& fiber) {
  if (fiber.stack == nullptr) {
    void* memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) Fail("no memory for the threads' stacks");
    mprotect(memory, kPage, PROT_NONE);
    fiber.stack = static_cast<char*>(memory) + kPage;
  }
  ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kStackBytes);
  fiber.meeting = nullptr;
  fiber.barrier = nullptr;
  fiber.returned = false;
  fiber.last = {};
  fiber.fake_stack = nullptr;
  fiber.copies.clear();
#ifdef __x86_64__
  // Six registers, where SwitchStacks returns to, and where Main never does.
  void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes) - 8;
  std::fill(top, top + 8, nullptr);
  top[6] = reinterpret_cast<void*>(&Main);
  fiber.top = top;
#else
  getcontext(&fiber.state);
  fiber.state.uc_stack.ss_sp = fiber.stack;
  fiber.state.uc_stack.ss_size = kStackBytes;
  makecontext(&fiber.state, &Main, 0);
#endif
}

// Shared memory that kernels declare with a size is the thread-local memory of this program.
std::pair<char*, size_t> ThreadLocal() {
  std::pair<char*, size_t> found = {nullptr, 0};
  const auto visit = [](dl_phdr_info* info, size_t, void* result) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      if (info->dlpi_phdr[i].p_type == PT_TLS) {
        *static_cast<std::pair<char*, size_t>*>(result) = {static_cast<char*>(info->dlpi_tls_data),
                                                           info->dlpi_phdr[i].p_memsz};
      }
    }
    return 1;  // the program is the first
  };
  dl_iterate_phdr(visit, &found);
  return found;
}

void Poison() {
  static const std::pair<char*, size_t> all = ThreadLocal();
  const int bytes = Now().shared_bytes;
  std::vector<char*>& arrays = SharedArrays();
  char* from = all.first;
  for (char* array : arrays) {
    if (from != nullptr) std::memset(from, kPoison, array - from);
    std::memset(array, kPoison, bytes);
    if (from != nullptr) from = array + kMostSharedBytes;
  }
  if (from != nullptr) std::memset(from, kPoison, all.first + all.second - from);
}

// Fails if a block has written behind the dynamic shared memory that it has.
void CheckBeyond() {
  const int bytes = Now().shared_bytes, count = kMostSharedBytes - bytes;
  for (const char* array : SharedArrays()) {
    ASAN_UNPOISON_MEMORY_REGION(array + bytes, count);
    const char* beyond = array + bytes;
    if (count == 0 || (*beyond == static_cast<char>(kPoison) &&
                       std::memcmp(beyond, beyond + 1, count - 1) == 0)) {
      continue;
    }
    int at = 0;
    while (beyond[at] == static_cast<char>(kPoison)) ++at;
    Fail("the blocks have %d bytes of dynamic shared memory, and one wrote at %d", bytes,
         bytes + at);
  }
}

void (*when_failing)();

}  // namespace

void Fail(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fflush(stdout);
  if (Now().current >= 0) {
    std::fprintf(stderr, "thread %u of block %u (%u blocks of %u threads): ", threadIdx.x,
                 blockIdx.x, gridDim.x, blockDim.x);
  }
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  if (when_failing != nullptr) when_failing();
  std::exit(1);
}

void WhenFailing(void (*print)()) {
  when_failing = print;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_set_death_callback(print);
#else
  // On a stack of its own: that of the thread may be what is full.
  static char stack[64 << 10];
  stack_t alternate = {};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof(stack);
  sigaltstack(&alternate, nullptr);
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    const State& now = Now();
    const Site last = now.current < 0 ? Site() : now.fibers[now.current].last;
    Fail("no memory at %p, or no more of the thread's stack; it went on from %s:%d", info->si_addr,
         last.file == nullptr ? "its start" : last.file, last.line);
  };
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
#endif
}

DynamicShared::DynamicShared(void* first) { SharedArrays().push_back(static_cast<char*>(first)); }

void Seed(uint64_t seed) {
  Now().random = (seed + 1) * 0x9e3779b97f4a7c15 | 1;
  for (int i = 0; i < 8; ++i) Random();
}

void Run(int blocks, int threads, int shared_bytes, void (*thread)(void*), void* context) {
  State& now = Now();
  if (now.random == 0) {
    const char* seed = std::getenv("SASA_EMULATION_SEED");
    Seed(seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10));
  }
  blockDim.x = threads;
  gridDim.x = blocks;
  if (blocks < 1 || threads < 1 || threads > kMostThreads) Fail("no such launch");
  if (shared_bytes < 0 || shared_bytes > kMostSharedBytes) {
    Fail("%d bytes of dynamic shared memory", shared_bytes);
  }
  now.thread = thread;
  now.context = context;
  now.shared_bytes = shared_bytes;
  std::sort(SharedArrays().begin(), SharedArrays().end());
  for (char* array : SharedArrays()) {
    std::memset(array, kPoison, kMostSharedBytes);
    ASAN_POISON_MEMORY_REGION(array + shared_bytes, kMostSharedBytes - shared_bytes);
  }
  for (int block = 0; block < blocks; ++block) {
    blockIdx.x = block;
    Poison();
    for (Warp& warp : now.warps) warp = {};
    now.live_warps = 0;
    now.returned = now.at_barrier = 0;
    for (int i = 0; i < threads; ++i) {
      Prepare(now.fibers[i]);
      if (i % kWarp == 0) now.warps[i / kWarp].returned = ~0u;
      now.warps[i / kWarp].returned &= ~(1u << i % kWarp);
      Wake(i / kWarp, 1u << i % kWarp);
    }
    constexpr uint64_t kStays[] = {0, 7, 255, ~uint64_t{0}};
    now.stay = kStays[Random() % 4];
    Choose();
    Switch(now.system, now.fibers[now.current], false);
  }
  CheckBeyond();
}

void Meet(const Meeting& meeting, void* operands) {
  State& now = Now();
  const int warp = now.current / kWarp, lane = now.current % kWarp;
  Warp& w = now.warps[warp];
  Fiber* fibers = now.fibers + warp * kWarp;
  Fiber& own = fibers[lane];
  if (!(meeting.mask >> lane & 1)) {
    Fail("%s at %s:%d without itself", meeting.name, meeting.site.file, meeting.site.line);
  }
  own.last = meeting.site;
  own.meeting = &meeting;
  own.operands = operands;
  size_t index = w.meetings.size();
  for (size_t i = 0; i < w.meetings.size(); ++i) {
    const Warp::Waiting& waiting = w.meetings[i];
    const Meeting& other = *fibers[waiting.first].meeting;
    if (waiting.mask == meeting.mask && Same(other.name, meeting.name) &&
        (meeting.anywhere || Same(other.site, meeting.site))) {
      index = i;
    } else if (waiting.mask & meeting.mask) {
      Fail(
          "lane %d of its warp is at %s of lanes %08x, %s:%d, and it came to %s of lanes %08x, "
          "%s:%d",
          waiting.first, other.name, waiting.mask, other.site.file, other.site.line, meeting.name,
          meeting.mask, meeting.site.file, meeting.site.line);
    }
  }
  if (index == w.meetings.size()) {
    for (int other = 0; now.at_barrier > 0 && other < kWarp; ++other) {
      if (meeting.mask >> other & 1 && fibers[other].barrier != nullptr) {
        Fail(
            "lane %d of its warp is at __syncthreads, %s:%d, and it came to %s of lanes %08x, "
            "%s:%d",
            other, fibers[other].barrier->file, fibers[other].barrier->line, meeting.name,
            meeting.mask, meeting.site.file, meeting.site.line);
      }
    }
    w.meetings.push_back({meeting.mask, 0, lane});
  }
  w.meetings[index].arrived |= 1u << lane;
  Hold(warp, index);
  Yield(false);
}

void Barrier(Site site) {
  State& now = Now();
  const int warp = now.current / kWarp, lane = now.current % kWarp;
  Warp& w = now.warps[warp];
  for (const Warp::Waiting& waiting : w.meetings) {
    if (!(waiting.mask >> lane & 1)) continue;
    const Meeting& other = *now.fibers[warp * kWarp + waiting.first].meeting;
    Fail("lane %d of its warp is at %s of lanes %08x, %s:%d, and it came to __syncthreads, %s:%d",
         waiting.first, other.name, waiting.mask, other.site.file, other.site.line, site.file,
         site.line);
  }
  if (w.barrier == nullptr) {
    w.barrier = &site;
    w.barrier_lane = lane;
  } else if (!Same(*w.barrier, site)) {
    Fail("lane %d of its warp is at __syncthreads, %s:%d, and it came to the one at %s:%d",
         w.barrier_lane, w.barrier->file, w.barrier->line, site.file, site.line);
  }
  now.fibers[now.current].last = site;
  now.fibers[now.current].barrier = &site;
  ++now.at_barrier;
  ReleaseBarrier();
  Yield(false);
}

uint32_t AddressOf(const void* pointer) {
  const std::vector<char*>& arrays = SharedArrays();
  for (size_t i = 0; i < arrays.size(); ++i) {
    const intptr_t offset = static_cast<const char*>(pointer) - arrays[i];
    if (offset >= 0 && offset <= Now().shared_bytes) {
      return static_cast<uint32_t>((i << 20) + kFirstAddress + offset);
    }
  }
  Fail("SharedAddress of what is not in the block's dynamic shared memory");
}

char* SharedAt(const char* name, Site site, uint32_t address, int bytes, int alignment) {
  const int64_t offset = static_cast<int64_t>(address & 0xfffff) - kFirstAddress;
  const std::vector<char*>& arrays = SharedArrays();
  const size_t index = address >> 20;
  if (index >= arrays.size() || offset < 0 || offset + bytes > Now().shared_bytes) {
    Fail("%s at %s:%d touches byte %ld of %d of shared memory", name, site.file, site.line,
         static_cast<long>(offset), Now().shared_bytes);
  }
  if (offset % alignment != 0) {
    Fail("%s at %s:%d: byte %ld of shared memory is not a multiple of %d", name, site.file,
         site.line, static_cast<long>(offset), alignment);
  }
  return arrays[index] + offset;
}

void StartCopy(const char* name, Site site, uint32_t to, const void* from, int bytes, int size) {
  Fiber& own = Now().fibers[Now().current];
  char* target = SharedAt(name, site, to, size, size);
  if (bytes > 0) {
    if (reinterpret_cast<uintptr_t>(from) % size != 0) {
      Fail("%s at %s:%d from %p, which is not a multiple of %d", name, site.file, site.line, from,
           size);
    }
    // Where there is nothing to read, that shows here and not when the copy lands.
    own.last = site;
    const volatile char* first = static_cast<const char*>(from);
    static_cast<void>(first[0]), static_cast<void>(first[bytes - 1]);
  }
  if (own.copies.empty()) own.copies.emplace_back();
  std::memset(target, kPoison, size);
  own.copies.back().push_back({target, from, bytes, size - bytes});
}

void CommitCopies() {
  std::deque<Group>& copies = Now().fibers[Now().current].copies;
  if (copies.empty()) copies.emplace_back();
  copies.emplace_back();
}

void AwaitCopies(int most) {
  std::deque<Group>& copies = Now().fibers[Now().current].copies;
  // The last has not been committed and stays.
  while (static_cast<int>(copies.size()) > most + 1) {
    for (const Copy& copy : copies.front()) {
      std::memcpy(copy.to, copy.from, copy.bytes);
      std::memset(copy.to + copy.bytes, 0, copy.zeros);
    }
    copies.pop_front();
  }
}

}  // namespace emulation
