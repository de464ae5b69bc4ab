"""Which compiled kernels are usable, and why the others are not."""

from __future__ import annotations

import dataclasses

from sasa_tf.native import cache, library

_PLATFORMS = ("CPU", "CUDA")


@dataclasses.dataclass(frozen=True)
class KernelStatus:
  """The state of the compiled kernels, which `implementation="fused"` needs.

  Attributes:
    usable: the platforms with usable kernels, of "CPU" and "CUDA".
    reasons: {platform: why its kernels cannot be used} for the others.
    library_path: where the library is, or is expected.
    build_command: builds the library for this TensorFlow and this host.
  """

  usable: tuple[str, ...]
  reasons: dict[str, str]
  library_path: str
  build_command: str = library.BUILD_COMMAND

  def __str__(self) -> str:
    lines = [f"{name}: {self.reasons.get(name, 'usable')}" for name in _PLATFORMS]
    return "\n".join([*lines, f"library: {self.library_path}", f"build: {self.build_command}"])


def kernel_status() -> KernelStatus:
  """Returns which compiled kernels are usable in this process, and why the others are not.

  This loads the library, if it has been built.
  """
  loaded = library.load()
  return KernelStatus(
    usable=loaded.platforms,
    reasons={name: loaded.reason for name in _PLATFORMS if name not in loaded.platforms},
    library_path=str(cache.library_path()),
  )
