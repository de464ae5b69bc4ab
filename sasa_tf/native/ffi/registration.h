// Registration of the kernels as XLA custom calls (typed FFI).
#ifndef SASA_TF_NATIVE_FFI_REGISTRATION_H_
#define SASA_TF_NATIVE_FFI_REGISTRATION_H_

#include <string>

#include "xla/ffi/api/c_api.h"

namespace sasa {

// Registers handlers with XLA and saves the first error.
class Registrar {
 public:
  Registrar();

  // Returns whether there is a TensorFlow with XLA FFI in this process.
  bool has_api() const { return api_ != nullptr; }

  void RegisterCpu(const char* name, XLA_FFI_Handler* handler);

  // `in_cuda_graphs`: the handler only enqueues work on the stream, so CUDA graphs can capture it.
  void RegisterCuda(const char* name, XLA_FFI_Handler* handler, bool in_cuda_graphs = true);

  // Returns "", or the first error message.
  const std::string& error() const { return error_; }

  // Returns a line "<platform> <name>" for each handler that was registered.
  const std::string& handlers() const { return handlers_; }

 private:
  void Register(const char* name, const char* platform, XLA_FFI_Handler* handler,
                XLA_FFI_Handler_Traits traits);

  const XLA_FFI_Api* api_;
  std::string error_, handlers_;
};

void RegisterLocalAttention(Registrar& registrar);
void RegisterProjections(Registrar& registrar);
void RegisterStemAttention(Registrar& registrar);
void RegisterAllReduce(Registrar& registrar);

}  // namespace sasa

#endif  // SASA_TF_NATIVE_FFI_REGISTRATION_H_
