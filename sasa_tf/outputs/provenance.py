"""The commit and the versions that results are stored with. Imports no TensorFlow."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import subprocess
from collections.abc import Iterable

import sasa_tf


def package_versions(packages: Iterable[str]) -> dict[str, str | None]:
  """Returns {package: its version}, None for those that are not installed."""
  return {package: _version(package) for package in packages}


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def commit() -> str | None:
  """Returns the commit of the checkout, with a plus if files are modified; None if it is none.

  The environment variable SASA_TF_COMMIT names that of a copy without a git directory.
  """
  if os.environ.get("SASA_TF_COMMIT"):
    return os.environ["SASA_TF_COMMIT"]
  root = pathlib.Path(sasa_tf.__file__).parent.parent
  if not (root / ".git").exists():
    return None
  try:
    described = subprocess.run(
      ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--dirty=+"],
      capture_output=True,
      text=True,
    )
  except OSError:
    return None
  return described.stdout.strip() or None
