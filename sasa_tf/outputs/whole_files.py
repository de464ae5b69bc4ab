"""Writes files whole."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

from sasa_tf.errors import UserError
from sasa_tf.outputs.replacement import replace_file


def write_file(target: pathlib.Path, content: str | bytes) -> None:
  """Writes a file, which replaces an earlier one when it is complete.

  Args:
    target: from `path_checks.check_file`.
    content: of the file; text is encoded as UTF-8.

  Raises:
    UserError: the file cannot be written. An earlier one is unchanged.
  """
  with writing(target) as path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def writing(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the path to write a file to; see `write_file`."""
  try:
    with replace_file(target) as path:
      yield path
  except OSError as error:
    raise UserError(
      f"{target} cannot be written: {error.strerror}. Choose another path, or free space."
    ) from error
