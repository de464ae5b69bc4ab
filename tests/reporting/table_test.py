"""Tables as text, for rich's console and in Markdown."""

import io

import pytest
from rich.console import Console

from sasa_tf.reporting import Column, Table, clip


def table_of(titles, *rows):
  table = Table(titles)
  for row in rows:
    table.add_row(*row)
  return table


def widest(text):
  return max(map(len, text.splitlines()))


def test_html():
  table = Table(["name", "value"])
  table.add_row("a<b", "1")
  table.add_row("c", "", style="bold")
  assert table.to_html() == (
    '<table>\n<tr><th class="left">name</th><th>value</th></tr>\n'
    '<tr><td class="left">a&lt;b</td><td>1</td></tr>\n'
    '<tr><td class="left"><strong>c</strong></td><td><strong></strong></td></tr>\n</table>'
  )


def test_columns_are_aligned():
  table = table_of(["model", "parameters"], ["conv", "1,000"], ["attention", "10"])
  assert table.to_text().splitlines() == [
    "model      parameters",
    "conv            1,000",
    "attention          10",
  ]


def test_note_replaces_the_cells_and_empty_columns_are_dropped():
  table = table_of(["name", "a", "b"], ["x", "", "1"])
  table.add_row("y", note="failed")
  assert table.to_text().splitlines() == ["name  b", "x     1", "y     failed"]


def test_long_notes_are_wrapped_and_cut():
  table = Table(["name", "a"])
  table.add_row("x", note="too many words " * 40)
  lines = table.to_text(40).splitlines()
  assert len(lines) == 5 and widest("\n".join(lines)) <= 40
  assert lines[2].startswith("      ") and lines[-1].endswith("...")


def test_wide_tables_lose_their_last_columns_and_the_end_of_names():
  row = ["a_very_long_name_" * 3, "1" * 20, "2" * 20, "3" * 20]
  text = table_of(["name", "a", "b", "c"], row).to_text(60)
  assert widest(text) <= 60
  assert "2" in text and "3" not in text and "..." in text


def test_only_one_column_is_left_where_nothing_else_fits():
  assert table_of(["name", "a"], ["x", "1" * 50]).to_text(20).splitlines() == ["name", "x"]


def test_markdown_escapes_pipes_and_marks_bold_rows():
  table = table_of(["rows", "value"], [" 1 | 2", "3"])
  table.add_row("total", "3", style="bold")
  table.add_row("warning", "4", style="yellow")
  assert table.to_markdown().splitlines() == [
    "| rows | value |",
    "|---|---|",
    "| 1 \\| 2 | 3 |",
    "| **total** | **3** |",
    "| warning | 4 |",
  ]


def test_rich_table_has_terminal_titles_and_fits_the_console():
  table = Table(
    [
      Column("layer", "left", wrap=True),
      Column("GFLOPs paper", terminal_title="GFLOPs\npaper"),
    ]
  )
  table.add_row("a name of several words", "7.0")
  table.add_section()
  table.add_row("b", "8.0", style="bold")
  console = Console(file=io.StringIO(), width=18)
  console.print(table.to_rich())
  text = console.file.getvalue()
  assert "GFLOPs paper" not in text and "GFLOPs" in text and "7.0" in text
  assert widest(text) <= 18


def test_row_by_row_printing_uses_the_minimum_widths():
  table = Table([Column("name", "left", 6), Column("seconds"), Column("verdict", "left")])
  assert table.header_line() == "name    seconds  verdict"
  assert table.row_line("layer", "12", "fits") == "layer        12  fits"
  assert table.row_line("layer", note="failed: reason") == "layer  failed: reason"


def test_too_many_cells_are_an_error():
  with pytest.raises(ValueError, match="at most 1 cells; received 2"):
    Table(["a"]).add_row("1", "2")


def test_clip():
  assert clip("abcdef", 6) == "abcdef"
  assert clip("abcdefg", 6) == "abc..."
