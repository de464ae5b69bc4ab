// Functions of libraries that are opened at run time.
#ifndef SASA_TF_NATIVE_COLLECTIVES_DYNAMIC_LIBRARY_H_
#define SASA_TF_NATIVE_COLLECTIVES_DYNAMIC_LIBRARY_H_

#include <dlfcn.h>

#include <string>

namespace sasa {

// RTLD_DEEPBIND: a library calls its own functions, also if the process has others of the same
// names. TensorFlow contains an NCCL, whose communicators differ from those of another version.
#ifndef RTLD_DEEPBIND
#define RTLD_DEEPBIND 0
#endif

// Opens a library, and looks up its functions. The library is never closed.
class DynamicLibrary {
 public:
  explicit DynamicLibrary(const std::string& path)
      : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND)) {
    if (handle_ == nullptr) error_ = dlerror();
  }

  // Sets `function` to the function of that name, or saves an error.
  template <typename Function>
  void Find(const char* name, Function*& function) {
    if (!error_.empty()) return;
    function = reinterpret_cast<Function*>(dlsym(handle_, name));
    if (function == nullptr) error_ = std::string("there is no ") + name;
  }

  // Returns "" or the first error.
  const std::string& error() const { return error_; }

 private:
  void* handle_;
  std::string error_;
};

}  // namespace sasa

#endif  // SASA_TF_NATIVE_COLLECTIVES_DYNAMIC_LIBRARY_H_
