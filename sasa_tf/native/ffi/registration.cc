#include "ffi/registration.h"

#include "xla/ffi/api/ffi.h"

extern "C" const XLA_FFI_Api* XLA_FFI_GetApi();  // defined in libtensorflow_framework

namespace sasa {

void Registrar::Register(const char* name, const char* platform, XLA_FFI_Handler* handler,
                         XLA_FFI_Handler_Traits traits) {
  const XLA_FFI_Api* api = XLA_FFI_GetApi();
  XLA_FFI_Error* error = xla::ffi::Ffi::RegisterStaticHandler(api, name, platform, handler, traits);
  if (error == nullptr) return;
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

// Registers all kernels with XLA, once. Returns "", or an error message.
extern "C" __attribute__((visibility("default"))) const char* sasa_tf_register() {
  static const std::string error = [] {
    sasa::Registrar registrar;
    sasa::RegisterLocalAttention(registrar);
    sasa::RegisterStemAttention(registrar);
    return registrar.error();
  }();
  return error.c_str();
}
