"""Tables as plain text, for rich's console, in Markdown and in HTML."""

from __future__ import annotations

import dataclasses
import html
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
  import rich.table

# Maximum width of a report, and its width where that of the terminal is unknown.
WIDTH = 100
_SEPARATOR = "  "
_NOTE_LINES = 4


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a `Table`.

  Attributes:
    title: the heading.
    align: of the cells.
    min_width: width of a narrower column; aligns tables that are printed row by row.
    wrap: whether its cells may be wrapped on a narrow terminal.
    terminal_title: the heading for rich's console, where another is needed there.
  """

  title: str
  align: Literal["left", "right"] = "right"
  min_width: int = 0
  wrap: bool = False
  terminal_title: str | None = None


@dataclasses.dataclass(frozen=True)
class _Row:
  cells: tuple[str, ...]
  note: str | None
  style: str | None
  ends_section: bool = False


class Table:
  """Rows of text below headings.

  Examples:
    >>> table = Table(["model", "parameters"])
    >>> table.add_row("resnet50", "25,557,032")
    >>> print(table.to_text())
    model     parameters
    resnet50  25,557,032
  """

  def __init__(self, columns: Sequence[Column | str]):
    """Creates a table without rows.

    Args:
      columns: columns or their titles; of titles, the first column is aligned left and the others
        right.
    """
    self._columns = tuple(
      column if isinstance(column, Column) else Column(column, "right" if index else "left")
      for index, column in enumerate(columns)
    )
    self._rows: list[_Row] = []

  def add_row(self, *cells: str, note: str | None = None, style: str | None = None) -> None:
    """Adds a row.

    Args:
      *cells: one for each column; trailing empty cells may be omitted.
      note: text in place of all cells but the first, for example an error; in plain text only.
      style: of rich, for the terminal; "bold" is bold in Markdown too.
    """
    self._rows.append(_Row(self._padded(cells), note, style))

  def add_section(self) -> None:
    """Separates the rows until now from the next ones on rich's console."""
    if self._rows:
      self._rows[-1] = dataclasses.replace(self._rows[-1], ends_section=True)

  def to_text(self, max_width: int = WIDTH) -> str:
    """Returns plain text. Columns without content, and the last ones that do not fit, are dropped.

    Args:
      max_width: of a line; the first column is shortened where needed.
    """
    titles = [column.title for column in self._columns]
    used = [i for i in range(len(titles)) if not i or any(row.cells[i] for row in self._rows)]
    widths = {
      i: max(self._columns[i].min_width, *(len(cells[i]) for cells in self._all_cells()))
      for i in used
    }
    rest = sum(widths.values()) - widths[0] + len(_SEPARATOR) * (len(widths) - 1)
    while len(widths) > 1 and rest + len(titles[0]) > max_width:
      rest -= widths.popitem()[1] + len(_SEPARATOR)
    widths[0] = min(widths[0], max_width - rest)
    lines = [self._line(titles, widths)]
    for row in self._rows:
      if row.note is None:
        lines.append(self._line(row.cells, widths))
      else:
        lines += _note_lines(clip(row.cells[0], widths[0]).ljust(widths[0]), row.note, max_width)
    return "\n".join(lines)

  def to_markdown(self) -> str:
    """Returns a table in Markdown, one line a row; pipes in cells are escaped."""

    def line(cells: Sequence[str]) -> str:
      return f"| {' | '.join(cell.strip().replace('|', escaped) for cell in cells)} |\n"

    escaped = "\\|"
    rows = [
      [f"**{cell}**" if cell.strip() and row.style == "bold" else cell for cell in row.cells]
      for row in self._rows
    ]
    titles = [column.title for column in self._columns]
    return "".join([line(titles), f"|{'---|' * len(titles)}\n", *map(line, rows)])

  def to_html(self) -> str:
    """Returns an HTML table; cells of columns that are aligned left have the class "left"."""

    def line(tag: str, cells: Sequence[str], style: str | None = None) -> str:
      begin, end = ("<strong>", "</strong>") if style == "bold" else ("", "")
      return "".join(
        f"<{tag}{left if column.align == 'left' else ''}>"
        f"{begin}{html.escape(cell.strip())}{end}</{tag}>"
        for column, cell in zip(self._columns, cells, strict=True)
      )

    left = ' class="left"'
    titles = line("th", [column.title for column in self._columns])
    rows = [f"<tr>{line('td', row.cells, row.style)}</tr>\n" for row in self._rows]
    return f"<table>\n<tr>{titles}</tr>\n{''.join(rows)}</table>"

  def to_rich(self) -> rich.table.Table:
    """Returns a table for rich's console, with styles and sections."""
    import rich.box
    import rich.table

    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, padding=0)
    for column in self._columns:
      title = column.title if column.terminal_title is None else column.terminal_title
      table.add_column(title, justify=column.align, overflow="ellipsis", no_wrap=not column.wrap)
    for row in self._rows:
      table.add_row(*row.cells, style=row.style, end_section=row.ends_section)
    return table

  def header_line(self) -> str:
    """Returns the headings, for a table that is printed row by row."""
    return self.row_line(*(column.title for column in self._columns))

  def row_line(self, *cells: str, note: str | None = None) -> str:
    """Returns one row below `header_line`; arguments as of `add_row`."""
    widths = {
      index: max(column.min_width, len(column.title)) for index, column in enumerate(self._columns)
    }
    line = self._line(self._padded(cells), widths)
    return line if note is None else f"{line}{_SEPARATOR}{note}"

  def _padded(self, cells: Sequence[str]) -> tuple[str, ...]:
    if len(cells) > len(self._columns):
      raise ValueError(f"expected at most {len(self._columns)} cells; received {len(cells)}.")
    return (*cells, *[""] * (len(self._columns) - len(cells)))

  def _all_cells(self) -> list[Sequence[str]]:
    return [[column.title for column in self._columns], *(row.cells for row in self._rows)]

  def _line(self, cells: Sequence[str], widths: dict[int, int]) -> str:
    """Joins the cells of the columns in `widths`; only the first one is clipped."""
    aligned = [
      text.ljust(width) if self._columns[index].align == "left" else text.rjust(width)
      for index, width in widths.items()
      for text in [cells[index] if index else clip(cells[index], width)]
    ]
    return _SEPARATOR.join(aligned).rstrip()


def clip(text: str, width: int) -> str:
  """Returns the text; its end is replaced by dots where it is longer than `width`."""
  return text if len(text) <= width else text[: width - 3] + "..."


def _note_lines(name: str, note: str, max_width: int) -> list[str]:
  return textwrap.wrap(
    note,
    max_width,
    initial_indent=f"{name}{_SEPARATOR}",
    subsequent_indent=" " * len(f"{name}{_SEPARATOR}"),
    max_lines=_NOTE_LINES,
    placeholder="...",
  )
