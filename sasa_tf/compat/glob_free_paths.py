r"""Paths without the characters of glob patterns, which TensorFlow expands where a path is meant.

TensorFlow's readers of checkpoints and SavedModels, its CheckpointManager and Model Garden's input
reader match files by pattern. A checkpoint in "runs/exp [lr=1e-3]" is not found, and one in
"runs/exp*" deletes those of "runs/exp1". These functions return another path to the same file,
through a symbolic link in a temporary directory of this process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator

from sasa_tf.errors import PreemptedError, UserError, WorkerLostError

_GLOB = "*?[\\"
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

# {absolute path of a directory or file: link to it}.
_links: dict[str, str] = {}
_folder: str | None = None


def escape_glob(path: str) -> str:
  """Returns the pattern that matches only this path, for `tf.io.gfile.glob`."""
  return "".join(f"\\{character}" if character in _GLOB else character for character in path)


def glob_free_path(path: str, special: str = _GLOB) -> str:
  """Returns a path that TensorFlow does not take for a pattern; `path` itself if it is none.

  Args:
    path: of a directory, a file or a checkpoint, which need not exist. The links remain until this
      process ends.
    special: characters that the path must not have.

  Raises:
    UserError: the path is remote, or the name of the checkpoint itself has such characters.
  """
  if not set(special) & set(path):
    return path
  if _REMOTE.match(path):
    raise UserError(
      f"{path}: TensorFlow takes the characters {' '.join(special)} of a remote path for a "
      "pattern. Rename the directory."
    )
  directory, name = os.path.split(path.rstrip("/"))
  if os.path.isdir(path):
    return _link(path)
  if os.path.isfile(path):
    return _link(path) if set(special) & set(name) else os.path.join(_link(directory), name)
  if set(special) & set(name):
    if os.path.exists(f"{path}.index"):
      raise UserError(
        f"{path}: TensorFlow takes the characters {' '.join(special)} in the name of a checkpoint "
        "for a pattern. Rename its files."
      )
    return _link(path)  # a directory that is not created yet
  return os.path.join(_link(directory), name)


def original_paths(text: str) -> str:
  """Returns a text with the original paths instead of those of `glob_free_path`."""
  for path, link in _links.items():
    text = text.replace(link, path)
  return text


@contextlib.contextmanager
def original_paths_in_errors() -> Iterator[None]:
  """Replaces the paths of `glob_free_path` in the messages of errors for the user."""
  try:
    yield
  except (UserError, PreemptedError, WorkerLostError) as error:
    error.args = tuple(
      original_paths(argument) if isinstance(argument, str) else argument for argument in error.args
    )
    raise


def _link(path: str) -> str:
  path = path.rstrip("/")
  target = os.path.abspath(path)
  for known, link in _links.items():
    if os.path.abspath(known) == target:
      return link
  # Of fixed width: no link is the beginning of another one.
  link = os.path.join(_temporary_folder(), f"{len(_links):06d}")
  os.symlink(target, link)
  _links[path] = link
  return link


def _temporary_folder() -> str:
  global _folder
  if _folder is None:
    parent = tempfile.gettempdir()
    if set(_GLOB) & set(parent):
      raise UserError(
        f"TMPDIR={parent}: expected a directory without the characters {' '.join(_GLOB)}."
      )
    _folder = tempfile.mkdtemp(prefix="sasa_tf_paths_", dir=parent)
    atexit.register(_remove_folder, _folder, os.getpid())
  return _folder


def _remove_folder(folder: str, process: int) -> None:
  if os.getpid() == process:  # not in a forked process
    shutil.rmtree(folder, ignore_errors=True)
