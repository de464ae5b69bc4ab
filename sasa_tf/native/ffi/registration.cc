#include "ffi/registration.h"

#include "xla/ffi/api/ffi.h"

extern "C" const XLA_FFI_Api* XLA_FFI_GetApi();  // defined in libtensorflow_framework

namespace sasa {

void Registrar::Register(const char* name, const char* platform, XLA_FFI_Handler* handler,
                         XLA_FFI_Handler_Traits traits) {
  const XLA_FFI_Api* api = XLA_FFI_GetApi();
  XLA_FFI_Error* error = xla::ffi::Ffi::RegisterStaticHandler(api, name, platform, handler, traits);
  if (error == nullptr) {
    handlers_ += std::string(platform) + " " + name + "\n";
    return;
  }
  if (error_.empty()) error_ = xla::ffi::internal::GetErrorMessage(api, error);
  xla::ffi::internal::DestroyError(api, error);
}

void Registrar::RegisterCpu(const char* name, XLA_FFI_Handler* handler) {
  Register(name, "Host", handler, 0);
}

void Registrar::RegisterCuda(const char* name, XLA_FFI_Handler* handler) {
  // The kernels only enqueue work on the stream, so CUDA graphs can capture them.
  Register(name, "CUDA", handler, XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE);
}

}  // namespace sasa

namespace {

// Registers all kernels with XLA, once.
const sasa::Registrar& Registered() {
  static const sasa::Registrar registrar = [] {
    sasa::Registrar registrar;
    sasa::RegisterLocalAttention(registrar);
    sasa::RegisterStemAttention(registrar);
    return registrar;
  }();
  return registrar;
}

}  // namespace

#define SASA_EXPORT extern "C" __attribute__((visibility("default")))

// Registers all kernels with XLA. Returns "", or an error message.
SASA_EXPORT const char* sasa_tf_register() { return Registered().error().c_str(); }

// Returns the registered kernels, a line "<platform> <name>" for each.
SASA_EXPORT const char* sasa_tf_handlers() { return Registered().handlers().c_str(); }
