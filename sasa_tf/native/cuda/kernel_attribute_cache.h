// What the CUDA runtime says of a kernel, which takes it longer than a launch may: asked once.
#ifndef SASA_TF_NATIVE_CUDA_ANSWERS_H_
#define SASA_TF_NATIVE_CUDA_ANSWERS_H_

#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <tuple>

namespace sasa {

// Returns what `ask(device)` returned when it was first called of this kernel on the current
// device, with so many threads and bytes of shared memory. Answers of each `Ask` are kept apart.
template <typename Kernel, typename Ask>
int AskOnce(Kernel kernel, int threads, int bytes, Ask ask) {
  static std::mutex mutex;
  static std::map<std::tuple<Kernel, int, int, int>, int> answers;
  int device = 0;
  cudaGetDevice(&device);
  const std::tuple<Kernel, int, int, int> question(kernel, device, threads, bytes);
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = answers.find(question);
  if (found != answers.end()) return found->second;
  return answers[question] = ask(device);
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_CUDA_ANSWERS_H_
