"""Errors of files, memory and threads that no check foresaw, in one paragraph with the cure.

Imports no TensorFlow: programs that do not need it use this too.
"""

from __future__ import annotations

import errno
import os
import re

_CURES = {
  errno.ENOSPC: "Free space.",
  errno.EDQUOT: "Free space.",
  errno.EFBIG: "Raise the limit of file sizes (ulimit -f).",
  errno.EACCES: "Change its permissions, or choose another path.",
  errno.EPERM: "Change its permissions, or choose another path.",
  errno.EROFS: "Choose a path on a file system that can be written.",
  errno.ENAMETOOLONG: "Choose a shorter path.",
  errno.ELOOP: "A link refers to itself: remove it.",
  errno.ENOTDIR: "A part of the path is a file: choose another path.",
  errno.EISDIR: "Expected a file: choose another path.",
  errno.EMFILE: "Raise the limit of open files (ulimit -n).",
  errno.ENFILE: "Raise the limit of open files (ulimit -n).",
  errno.EIO: "Check the disk.",
  errno.ESTALE: "Check the network file system.",
}
_FILE_ERRORS = (
  *("FailedPreconditionError", "PermissionDeniedError", "ResourceExhaustedError"),
  *("UnknownError", "InvalidArgumentError", "NotFoundError"),
)
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# TensorFlow's error of a remote file system: the problem, and the path in the next line.
_REMOTE = re.compile(
  r"(?P<problem>Error executing an HTTP request: [^\n]*)\n\s*"
  r"when \w+ (?:metadata of )?(?P<path>\S+)"
)
_MODULE = re.compile(r"No module named '(\w+)")
_SCHEME = re.compile(r"File system scheme '\w*' not implemented \(file: '(.*)'\)", re.DOTALL)

# "PATH; REASON", as TensorFlow reports errors of files.
_REASONS = {os.strerror(number): number for number in _CURES}
_PATH = re.compile(
  rf"^(?P<path>[^;\n]+); (?P<reason>{'|'.join(map(re.escape, _REASONS))})$", re.MULTILINE
)
# How Python represents a byte of a file name that is not UTF-8.
_BYTE = re.compile("[\udc80-\udcff]")
_NODE = re.compile(r"\{\{.*?\}\} ?| \[Op:\w*\].*", re.DOTALL)


def describe(error: BaseException) -> str | None:
  """Returns the paragraph of an error of the machine; None for other errors, also ENOENT.

  Args:
    error: what ended the program.
  """
  if isinstance(error, OSError) and error.errno in _CURES:
    verb = "written" if error.errno in _WRITING else "used"
    path = error.filename or ("a file or standard output" if verb == "written" else "a file")
    return f"{path} cannot be {verb}: {error.strerror}. {_CURES[error.errno]}"
  if isinstance(error, UnicodeEncodeError) and _BYTE.fullmatch(error.object[error.start]):
    return (
      f"the path or text {error.object!a} holds a byte that is not UTF-8, which TensorFlow needs. "
      "Rename the file, or correct the text."
    )
  if isinstance(error, MemoryError):
    return f"out of memory ({error}). Use less data, a smaller model or smaller batches."
  if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
    return "no further thread can be started. Raise the limit of processes (ulimit -u)."
  if isinstance(error, ValueError) and str(error).startswith("Key backend:"):
    return (
      f"the environment variable MPLBACKEND={os.environ.get('MPLBACKEND')}: matplotlib has no such "
      "backend. Unset it; plots are written to files."
    )
  # gin raises a copy, which has only the message.
  if isinstance(error, ModuleNotFoundError) and (found := _MODULE.search(str(error))):
    package = found[1]
    if package not in ("sasa_tf", "tests"):
      return (
        f"the Python package that provides the module {package!r} is missing. Install it in this "
        f"environment, most often with `pip install {package}`."
      )
  # TensorFlow's errors have no common type without importing it.
  name = type(error).__name__
  if found := _REMOTE.search(str(error)):
    return (
      f"{found['path'].rstrip('.')} cannot be reached: {found['problem']}. Check the address, the "
      "network and the credentials, or use a local directory."
    )
  if name in _FILE_ERRORS and (found := _PATH.search(str(error))):
    number = _REASONS[found["reason"]]
    verb = "written" if number in _WRITING else "used"
    return f"{found['path'].strip()} cannot be {verb}: {found['reason']}. {_CURES[number]}"
  if name == "ResourceExhaustedError":
    problem = _NODE.sub("", str(error)).strip().splitlines()[0]
    return f"out of memory ({problem}). Use less data, a smaller model or smaller batches."
  if name == "UnimplementedError" and (found := _SCHEME.search(str(error))):
    return (
      f"TensorFlow has no file system for {found[1]}. Copy the files to a local directory and set "
      "its path."
    )
  return None


def is_full(error: BaseException) -> bool:
  """Returns whether nothing more can be written, perhaps not even to standard output."""
  return isinstance(error, OSError) and error.errno in _WRITING
