"""Versions of the packages that this library uses, and the extras that are not installed."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator

from sasa_tf.diagnostics.findings import Finding

_CORE = ("tensorflow", "keras", "numpy", "absl-py")
_EXTRA = re.compile(r"""^([\w.-]+).*;.*extra\s*==\s*["']([\w.-]+)["']""")
# Extras for developers of this library.
_INTERNAL = ("all", "dev", "test")


def _version(distribution: str) -> str | None:
  try:
    return importlib.metadata.version(distribution)
  except importlib.metadata.PackageNotFoundError:
    return None


def check_core() -> Iterator[Finding]:
  """Yields the versions of the packages that are always needed."""
  for name in _CORE:
    version = _version(name)
    yield Finding(name, version or "not installed", "ok" if version else "problem")


def check_extras() -> Iterator[Finding]:
  """Yields the extras of this library with the packages that each of them lacks."""
  try:
    requirements = importlib.metadata.requires("sasa_tf") or []
  except importlib.metadata.PackageNotFoundError:
    yield Finding("sasa_tf", "not installed with pip, so its extras are unknown", "note")
    return
  extras: dict[str, set[str]] = {}
  for requirement in requirements:
    if match := _EXTRA.match(requirement):
      extras.setdefault(match[2], set()).add(match[1])
  for extra in sorted(set(extras) - {*_INTERNAL}):
    missing = sorted(name for name in extras[extra] if _version(name) is None)
    if missing:
      fix = f"pip install 'sasa_tf[{extra}]'"
      yield Finding(f"[{extra}]", f"lacks {', '.join(missing)}: {fix}", "note")
    else:
      yield Finding(f"[{extra}]", "installed")
