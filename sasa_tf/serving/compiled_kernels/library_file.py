"""The library of compiled kernels beside a SavedModel, in assets.extra.

It registers the kernels with TensorFlow when it is loaded, and depends on the C library only.
Imports no TensorFlow.
"""

from __future__ import annotations

import pathlib
import platform
import re
import shutil

import sasa_tf
from sasa_tf.errors import UserError

# Relative to the SavedModel. Model servers ignore assets.extra.
LIBRARY = pathlib.PurePath("assets.extra", "libsasa_tf.so")
README = pathlib.PurePath("assets.extra", "libsasa_tf.md")

# Ends the names of the signatures in TensorFlow's own operations.
STOCK_SUFFIX = "_stock"

_README = """# libsasa_tf.so

The attention kernels of this SavedModel, for Linux on {machine} CPUs with glibc {glibc} or later.
They use AVX-512, AVX2 or plain vectors, by the CPU. Load them before the first call:

```python
import tensorflow as tf
tf.load_library("assets.extra/libsasa_tf.so")
```

Other languages call `TF_LoadLibrary` of TensorFlow's C API. The kernels were built for TensorFlow
{tensorflow}. A TensorFlow whose XLA FFI is incompatible reports this on stderr when it loads them.
Without the library, calls end with "No FFI handler registered for sasa_tf_local_attention_forward".
The signatures whose names end with "{suffix}" need TensorFlow only.

Source: sasa_tf {version}, Apache License 2.0.
"""


def require_kernels() -> str:
  """Returns the path of the library to export.

  Raises:
    UserError: the kernels have not been built, or cannot be loaded.
  """
  from sasa_tf.ops import kernel_status

  status = kernel_status()
  if "CPU" not in status.usable:
    raise UserError(
      f"--cpu_kernels needs the compiled kernels: {status.reasons['CPU']}. Build them with "
      f"`{status.build_command}`, or export without --cpu_kernels."
    )
  return status.library_path


def copy_library(saved_model: pathlib.Path) -> None:
  """Copies the library and a README into assets.extra of a SavedModel.

  Args:
    saved_model: directory that is being written.
  """
  import tensorflow as tf

  library = pathlib.Path(require_kernels())
  (saved_model / LIBRARY).parent.mkdir(exist_ok=True)
  shutil.copyfile(library, saved_model / LIBRARY)
  readme = _README.format(
    machine=platform.machine(),
    glibc=required_glibc(library),
    tensorflow=tf.__version__,
    suffix=STOCK_SUFFIX,
    version=sasa_tf.__version__,
  )
  (saved_model / README).write_text(readme, encoding="utf-8")


def required_glibc(library: pathlib.Path) -> str:
  """Returns the oldest version of the C library that has all symbols which a library needs."""
  found = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", library.read_bytes())
  return ".".join(map(str, max((int(major), int(minor)) for major, minor in found)))
