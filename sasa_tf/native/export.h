// Marks the C functions of the library; all other symbols are hidden.
#ifndef SASA_TF_NATIVE_EXPORT_H_
#define SASA_TF_NATIVE_EXPORT_H_

#define SASA_EXPORT extern "C" __attribute__((visibility("default")))

#endif  // SASA_TF_NATIVE_EXPORT_H_
