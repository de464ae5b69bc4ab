// The scheduler: which thread runs next, collectives, barriers and grids.
#include "scheduler.h"

#include <signal.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "scheduler_state.h"

uint3 threadIdx, blockIdx, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};

namespace emulation {

State& GpuState() {
  static State* state = new State;
  return *state;
}

namespace {

uint64_t Random() {
  uint64_t& x = GpuState().random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x * 0x2545f4914f6cdd1d >> 16;
}

// Returns the index of one of the set bits, chosen by a random number.
int RandomBit(unsigned bits, int random) {
  const int start = random & 31;
  const unsigned rotated = bits >> start | (start ? bits << (32 - start) : 0);
  return (start + __builtin_ctz(rotated)) % 32;
}

// Makes a runnable thread the current one.
void ScheduleNext() {
  State& state = GpuState();
  const uint64_t random = Random();
  if (!(state.live_warps >> state.warp & 1) || (random & state.switch_mask) == 0) {
    state.warp = RandomBit(state.live_warps, random >> 32);
  }
  Warp& warp = state.warps[state.warp];
  const int lane = RandomBit(warp.runnable, random >> 40);
  warp.runnable &= ~(1u << lane);
  if (warp.runnable == 0) state.live_warps &= ~(1u << state.warp);
  threadIdx.x = state.current = state.warp * kWarp + lane;
}

// Lets another thread of the CTA run; returns to RunGrid if all have exited.
void Yield(bool exits) {
  State& state = GpuState();
  Fiber& from = state.fibers[state.current];
  if (state.live_warps == 0) {
    if (state.exited < static_cast<int>(blockDim.x)) Fail("deadlock: no thread can run");
    state.current = -1;
    SwitchFiber(from, state.system, exits);
    return;
  }
  ScheduleNext();
  Fiber& to = state.fibers[state.current];
  if (&to != &from) SwitchFiber(from, to, exits);
}

void Wake(int warp, unsigned lanes) {
  State& state = GpuState();
  state.warps[warp].runnable |= lanes;
  if (lanes) state.live_warps |= 1u << warp;
}

// Equal strings of different source files have different addresses.
bool Same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }
bool Same(const SourceLocation& a, const SourceLocation& b) {
  return a.line == b.line && Same(a.file, b.file);
}

// Executes a collective if all lanes that it waits for have arrived.
void ExecuteIfComplete(int warp_index, size_t index) {
  State& state = GpuState();
  Warp& warp = state.warps[warp_index];
  const Warp::Waiting waiting = warp.collectives[index];
  if (waiting.arrived != (waiting.mask & ~warp.exited)) return;
  Fiber* fibers = state.fibers + warp_index * kWarp;
  const WarpCollective& collective = *fibers[waiting.first].collective;
  if (collective.full_warp && waiting.arrived != ~0u) {
    Fail("lanes %08x of its warp have exited, and the others are at %s, %s:%d", warp.exited,
         collective.name, collective.location.file, collective.location.line);
  }
  void* all[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) {
    all[lane] = waiting.arrived >> lane & 1 ? fibers[lane].operands : nullptr;
  }
  if (collective.act != nullptr) collective.act(collective.context, all);
  state.polls = 0;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (waiting.arrived >> lane & 1) fibers[lane].collective = nullptr;
  }
  warp.collectives.erase(warp.collectives.begin() + index);
  Wake(warp_index, waiting.arrived);
}

void ReleaseBarrier() {
  State& state = GpuState();
  const int live = static_cast<int>(blockDim.x) - state.exited;
  if (state.at_barrier == 0 || state.at_barrier < live) return;
  for (unsigned i = 0; i < blockDim.x; ++i) {
    if (state.fibers[i].exited) continue;
    state.fibers[i].barrier = nullptr;
    Wake(i / kWarp, 1u << i % kWarp);
  }
  for (Warp& warp : state.warps) warp.barrier = nullptr;
  state.at_barrier = 0;
}

void ThreadMain() {
  State& state = GpuState();
  FinishSwitch(state.fibers[state.current]);
  state.thread(state.context);
  state.fibers[state.current].exited = true;
  ++state.exited;
  const int warp_index = state.current / kWarp;
  Warp& warp = state.warps[warp_index];
  warp.exited |= 1u << state.current % kWarp;
  for (size_t i = warp.collectives.size(); i-- > 0;) ExecuteIfComplete(warp_index, i);
  ReleaseBarrier();
  Yield(true);
  std::abort();
}

void (*on_failure)();

}  // namespace

void Fail(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fflush(stdout);
  if (GpuState().current >= 0) {
    std::fprintf(stderr, "thread %u of CTA %u (%u CTAs of %u threads): ", threadIdx.x, blockIdx.x,
                 gridDim.x, blockDim.x);
  }
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  if (on_failure != nullptr) on_failure();
  std::exit(1);
}

void OnFailure(void (*print)()) {
  on_failure = print;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_set_death_callback(print);
#else
  // On a separate stack, as the thread's own may have overflowed.
  static char stack[64 << 10];
  stack_t alternate = {};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof(stack);
  sigaltstack(&alternate, nullptr);
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    const State& state = GpuState();
    const SourceLocation last =
        state.current < 0 ? SourceLocation() : state.fibers[state.current].last;
    Fail("invalid memory access at %p, or stack overflow, after %s:%d", info->si_addr,
         last.file == nullptr ? "its start" : last.file, last.line);
  };
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
#endif
}

void Seed(uint64_t seed) {
  GpuState().random = (seed + 1) * 0x9e3779b97f4a7c15 | 1;
  for (int i = 0; i < 8; ++i) Random();
}

void RunGrid(int ctas, int threads, int shared_bytes, void (*thread)(void*), void* context) {
  State& state = GpuState();
  if (state.random == 0) {
    const char* seed = std::getenv("SASA_EMULATION_SEED");
    Seed(seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10));
  }
  blockDim.x = threads;
  gridDim.x = ctas;
  if (ctas < 1 || threads < 1 || threads > kMaxThreads) {
    Fail("invalid launch of %d CTAs of %d threads", ctas, threads);
  }
  if (shared_bytes < 0 || shared_bytes > kMaxSharedBytes) {
    Fail("invalid launch with %d bytes of dynamic shared memory", shared_bytes);
  }
  state.thread = thread;
  state.context = context;
  state.shared_bytes = shared_bytes;
  PrepareSharedMemory();
  for (int cta = 0; cta < ctas; ++cta) {
    blockIdx.x = cta;
    PoisonSharedMemory();
    for (Warp& warp : state.warps) warp = {};
    state.live_warps = 0;
    state.exited = state.at_barrier = state.polls = 0;
    for (int i = 0; i < threads; ++i) {
      InitFiber(state.fibers[i], ThreadMain);
      if (i % kWarp == 0) state.warps[i / kWarp].exited = ~0u;
      state.warps[i / kWarp].exited &= ~(1u << i % kWarp);
      Wake(i / kWarp, 1u << i % kWarp);
    }
    constexpr uint64_t kSwitchMasks[] = {0, 7, 255, ~uint64_t{0}};
    state.switch_mask = kSwitchMasks[Random() % 4];
    ScheduleNext();
    SwitchFiber(state.system, state.fibers[state.current], false);
  }
  CheckSharedMemoryBounds();
}

void RunCollective(const WarpCollective& collective, void* operands) {
  State& state = GpuState();
  const int warp_index = state.current / kWarp, lane = state.current % kWarp;
  Warp& warp = state.warps[warp_index];
  Fiber* fibers = state.fibers + warp_index * kWarp;
  Fiber& fiber = fibers[lane];
  const SourceLocation location = collective.location;
  if (!(collective.mask >> lane & 1)) {
    Fail("%s at %s:%d, whose mask does not include the lane", collective.name, location.file,
         location.line);
  }
  fiber.last = location;
  fiber.collective = &collective;
  fiber.operands = operands;
  size_t index = warp.collectives.size();
  for (size_t i = 0; i < warp.collectives.size(); ++i) {
    const Warp::Waiting& waiting = warp.collectives[i];
    const WarpCollective& other = *fibers[waiting.first].collective;
    if (waiting.mask == collective.mask && Same(other.name, collective.name) &&
        (collective.any_location || Same(other.location, location))) {
      index = i;
    } else if (waiting.mask & collective.mask) {
      Fail(
          "divergence: lane %d of its warp is at %s of lanes %08x, %s:%d, and it is at %s of lanes "
          "%08x, %s:%d",
          waiting.first, other.name, waiting.mask, other.location.file, other.location.line,
          collective.name, collective.mask, location.file, location.line);
    }
  }
  if (index == warp.collectives.size()) {
    for (int other = 0; state.at_barrier > 0 && other < kWarp; ++other) {
      if (collective.mask >> other & 1 && fibers[other].barrier != nullptr) {
        Fail(
            "divergence: lane %d of its warp is at __syncthreads, %s:%d, and it is at %s of lanes "
            "%08x, %s:%d",
            other, fibers[other].barrier->file, fibers[other].barrier->line, collective.name,
            collective.mask, location.file, location.line);
      }
    }
    warp.collectives.push_back({collective.mask, 0, lane});
  }
  warp.collectives[index].arrived |= 1u << lane;
  ExecuteIfComplete(warp_index, index);
  Yield(false);
}

void Poll(SourceLocation location) {
  State& state = GpuState();
  constexpr int kMaxPolls = 1000000;  // without a collective of any warp
  if (++state.polls > kMaxPolls) {
    Fail("deadlock: waits forever at %s:%d", location.file, location.line);
  }
  state.fibers[state.current].last = location;
  const int warp = state.current / kWarp, lane = state.current % kWarp;
  const unsigned others = state.live_warps & ~(1u << warp);
  if (others != 0) state.warp = RandomBit(others, Random());
  Wake(warp, 1u << lane);
  Yield(false);
}

void Barrier(SourceLocation location) {
  State& state = GpuState();
  const int warp_index = state.current / kWarp, lane = state.current % kWarp;
  Warp& warp = state.warps[warp_index];
  for (const Warp::Waiting& waiting : warp.collectives) {
    if (!(waiting.mask >> lane & 1)) continue;
    const WarpCollective& other = *state.fibers[warp_index * kWarp + waiting.first].collective;
    Fail(
        "divergence: lane %d of its warp is at %s of lanes %08x, %s:%d, and it is at "
        "__syncthreads, %s:%d",
        waiting.first, other.name, waiting.mask, other.location.file, other.location.line,
        location.file, location.line);
  }
  if (warp.barrier == nullptr) {
    warp.barrier = &location;
    warp.barrier_lane = lane;
  } else if (!Same(*warp.barrier, location)) {
    Fail(
        "divergence: lane %d of its warp is at __syncthreads, %s:%d, and it is at the one at "
        "%s:%d",
        warp.barrier_lane, warp.barrier->file, warp.barrier->line, location.file, location.line);
  }
  state.fibers[state.current].last = location;
  state.fibers[state.current].barrier = &location;
  ++state.at_barrier;
  ReleaseBarrier();
  Yield(false);
}

}  // namespace emulation
