// Fibers: stacks and the switches between them.
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>

#include "scheduler_state.h"

namespace emulation {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = 512 << 10;
#else
constexpr size_t kStackBytes = 128 << 10;
#endif
constexpr size_t kPageBytes = 4096;

#ifdef __x86_64__
__attribute__((naked, noinline)) void SwitchStacks(void** /*from: rdi*/, void* /*to: rsi*/) {
  asm("pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15;"
      "movq %rsp, (%rdi); movq %rsi, %rsp;"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx; ret");
}
#endif

#ifdef __SANITIZE_ADDRESS__
// The program's own stack, known from the first switch on.
const void* system_bottom;
size_t system_bytes;
#endif

}  // namespace

void FinishSwitch([[maybe_unused]] Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &bottom, &bytes);
  if (system_bytes == 0) {
    system_bottom = bottom;
    system_bytes = bytes;
  }
#endif
}

void SwitchFiber(Fiber& from, Fiber& to, [[maybe_unused]] bool exits) {
#ifdef __SANITIZE_ADDRESS__
  const bool to_system = to.stack == nullptr;
  __sanitizer_start_switch_fiber(exits ? nullptr : &from.fake_stack,
                                 to_system ? system_bottom : to.stack,
                                 to_system ? system_bytes : kStackBytes);
#endif
#ifdef __x86_64__
  SwitchStacks(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
  FinishSwitch(from);
}

void InitFiber(Fiber& fiber, void (*main)()) {
  if (fiber.stack == nullptr) {
    void* memory = mmap(nullptr, kStackBytes + kPageBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) Fail("out of memory for the stacks of the threads");
    mprotect(memory, kPageBytes, PROT_NONE);
    fiber.stack = static_cast<char*>(memory) + kPageBytes;
  }
  ASAN_UNPOISON_MEMORY_REGION(fiber.stack, kStackBytes);
  fiber.collective = nullptr;
  fiber.barrier = nullptr;
  fiber.exited = false;
  fiber.last = {};
  fiber.fake_stack = nullptr;
  fiber.copies.clear();
#ifdef __x86_64__
  // Six registers, the return address of SwitchStacks, and that of `main`, which never returns.
  void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes) - 8;
  std::fill(top, top + 8, nullptr);
  top[6] = reinterpret_cast<void*>(main);
  fiber.stack_pointer = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  makecontext(&fiber.context, main, 0);
#endif
}

}  // namespace emulation
