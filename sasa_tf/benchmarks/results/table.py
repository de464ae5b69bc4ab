"""Plain-text tables, so that logs, terminals and machines without further packages look alike."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 100
_NOTE_LINES = 4


def clip(text: str, width: int) -> str:
  """Returns the text, its end replaced by dots where it is longer than `width`."""
  return text if len(text) <= width else text[: width - 3] + "..."


def format_table(
  headers: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str | None]
) -> str:
  """Returns lines of at most `WIDTH` columns.

  Args:
    headers: of the columns; the first is aligned left, the others right.
    rows: of cells; a column without any content is left out, and so are the last ones where the
      table is too wide even with shortened names.
    notes: for each row, what stands there instead of all cells but the first, or None.
  """
  used = [index for index in range(len(headers)) if index == 0 or any(row[index] for row in rows)]
  columns = [[headers[index], *(row[index] for row in rows)] for index in used]
  widths = [max(map(len, column)) for column in columns]
  rest = sum(widths[1:]) + 2 * (len(widths) - 1)
  while rest + len(headers[0]) > WIDTH:
    rest -= widths.pop() + 2
    columns.pop()
  widths[0] = min(widths[0], WIDTH - rest)
  lines = list(zip(*columns, strict=True))

  def joined(cells: Sequence[str]) -> str:
    first, *others = cells
    right = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return "  ".join([clip(first, widths[0]).ljust(widths[0]), *right]).rstrip()

  text = [joined(lines[0])]
  for cells, note in zip(lines[1:], notes, strict=True):
    if note is None:
      text.append(joined(cells))
    else:
      text += textwrap.wrap(
        note,
        WIDTH,
        initial_indent=f"{clip(cells[0], widths[0]).ljust(widths[0])}  ",
        subsequent_indent=" " * (widths[0] + 2),
        max_lines=_NOTE_LINES,
        placeholder="...",
      )
  return "\n".join(text)
