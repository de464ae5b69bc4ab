"""Files and folders that systems and programs leave in every directory, and that are no data."""

import collections
from collections.abc import Iterable

from sasa_tf.data.inputs.values import one_line

_MAX_SHOWN = 10
# In lower case. Names that begin with a dot are hidden and need no entry: .DS_Store, .Trashes,
# .ipynb_checkpoints, .@__thumb, .AppleDouble, ._image.jpg and others.
_JUNK = frozenset(
  {
    "__macosx",  # macOS, in ZIP archives
    "network trash folder",
    "temporary items",
    "$recycle.bin",  # Windows
    "system volume information",
    "found.000",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "lost+found",  # Linux
    "@eadir",  # Synology
    "#recycle",
    "#snapshot",
    "@recycle",  # QNAP
    "@recently-snapshot",
    "@tmp",
    "~snapshot",  # NetApp
    "__pycache__",
  }
)


def is_junk(name: str) -> bool:
  """Returns whether a file or folder of this name is hidden or left over from another system."""
  return name.startswith(".") or name.lower() in _JUNK


def junk_warning(names: Iterable[str]) -> str:
  """Returns a warning that lists ignored names with their counts, such as "Thumbs.db 2, .git".

  Names of hidden files that belong to another file, such as ._1.jpg, are counted together.
  """
  counts = collections.Counter("._*" if name.startswith("._") else name for name in names)
  shown = [
    one_line(name) if count == 1 else f"{one_line(name)} {count:,}"
    for name, count in sorted(counts.items())[:_MAX_SHOWN]
  ]
  others = len(counts) - len(shown)
  more = f" and {others} other names" if others else ""
  return f"ignored hidden and system files and folders: {', '.join(shown)}{more}."
