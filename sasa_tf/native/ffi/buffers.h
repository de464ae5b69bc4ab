// Conversions between XLA's buffers and errors and those of the kernels.
#ifndef SASA_TF_NATIVE_FFI_BUFFERS_H_
#define SASA_TF_NATIVE_FFI_BUFFERS_H_

#include "local_attention.h"
#include "xla/ffi/api/ffi.h"

namespace sasa {

using Array = xla::ffi::AnyBuffer;
using ResultArray = xla::ffi::Result<xla::ffi::AnyBuffer>;

inline xla::ffi::ErrorOr<DType> DTypeOf(const Array& array) {
  switch (array.element_type()) {
    case xla::ffi::DataType::F32:
      return DType::kFloat32;
    case xla::ffi::DataType::BF16:
      return DType::kBfloat16;
    case xla::ffi::DataType::F16:
      return DType::kFloat16;
    default:
      return xla::ffi::Unexpected(
          xla::ffi::Error::InvalidArgument("the arrays must be float32, bfloat16 or float16"));
  }
}

inline const float* Floats(const Array& array) {
  return static_cast<const float*>(array.untyped_data());
}
inline float* Floats(ResultArray& array) { return static_cast<float*>(array->untyped_data()); }

// `reason` is what a kernel returns: null, or an error message.
inline xla::ffi::Error ToError(const char* reason) {
  return reason == nullptr ? xla::ffi::Error::Success() : xla::ffi::Error::Internal(reason);
}

}  // namespace sasa

#endif  // SASA_TF_NATIVE_FFI_BUFFERS_H_
