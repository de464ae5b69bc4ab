#include "ffi/registration.h"

#include <dlfcn.h>

#include <cstdio>
#include <mutex>

#include "export.h"
#include "xla/ffi/api/ffi.h"

namespace sasa {
namespace {

// Returns the XLA FFI of the TensorFlow in this process, or null. It is looked up and not linked,
// so that the library also loads where TensorFlow is part of the program, as in model servers.
const XLA_FFI_Api* FindApi() {
  constexpr char symbol[] = "XLA_FFI_GetApi";
  void* get_api = nullptr;
  // Python loads TensorFlow without making its symbols global.
  if (void* framework = dlopen("libtensorflow_framework.so.2", RTLD_LAZY | RTLD_NOLOAD)) {
    get_api = dlsym(framework, symbol);
    dlclose(framework);
  }
  if (get_api == nullptr) get_api = dlsym(RTLD_DEFAULT, symbol);
  return get_api == nullptr ? nullptr : reinterpret_cast<const XLA_FFI_Api* (*)()>(get_api)();
}

}  // namespace

Registrar::Registrar() : api_(FindApi()) {
  if (api_ == nullptr) {
    error_ =
        "there is no TensorFlow in this process, or one without XLA FFI; import TensorFlow 2.20 or "
        "later before the kernels are registered";
  }
}

void Registrar::Register(const char* name, const char* platform, XLA_FFI_Handler* handler,
                         XLA_FFI_Handler_Traits traits) {
  if (api_ == nullptr) return;
  XLA_FFI_Error* error =
      xla::ffi::Ffi::RegisterStaticHandler(api_, name, platform, handler, traits);
  std::string message;
  if (error != nullptr) {
    message = xla::ffi::internal::GetErrorMessage(api_, error);
    xla::ffi::internal::DestroyError(api_, error);
  }
  // A copy of this library, beside another exported model, may have registered the same kernel.
  if (message.empty() || message.rfind("Duplicate FFI handler", 0) == 0) {
    handlers_ += std::string(platform) + " " + name + "\n";
  } else if (error_.empty()) {
    error_ = message;
  }
}

void Registrar::RegisterCpu(const char* name, XLA_FFI_Handler* handler) {
  Register(name, "Host", handler, 0);
}

void Registrar::RegisterCuda(const char* name, XLA_FFI_Handler* handler, bool in_cuda_graphs) {
  Register(name, "CUDA", handler,
           in_cuda_graphs ? XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE : 0);
}

}  // namespace sasa

namespace {

// Registers all kernels with XLA, once there is a TensorFlow.
const sasa::Registrar& Registered() {
  static std::mutex mutex;
  static auto* registrar = new sasa::Registrar();  // not destroyed while its strings are read
  static bool registered = false;
  std::lock_guard<std::mutex> lock(mutex);
  if (!registered) {
    if (!registrar->has_api()) *registrar = sasa::Registrar();
    registered = registrar->has_api();
    sasa::RegisterLocalAttention(*registrar);
    sasa::RegisterProjections(*registrar);
    sasa::RegisterStemAttention(*registrar);
    sasa::RegisterAllReduce(*registrar);
  }
  return *registrar;
}

// Registers the kernels when the library is loaded into a process that has TensorFlow, for model
// servers (LD_PRELOAD) and for other languages (TF_LoadLibrary).
__attribute__((constructor)) void RegisterWhenLoaded() {
  const sasa::Registrar& registrar = Registered();
  if (registrar.has_api() && !registrar.error().empty()) {
    std::fprintf(stderr, "sasa_tf: the compiled kernels are not registered: %s\n",
                 registrar.error().c_str());
  }
}

}  // namespace

// Registers all kernels with XLA. Returns "", or an error message.
SASA_EXPORT const char* sasa_tf_register() { return Registered().error().c_str(); }

// Returns the registered kernels, a line "<platform> <name>" for each.
SASA_EXPORT const char* sasa_tf_handlers() { return Registered().handlers().c_str(); }
