"""The lines of a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

# ok: usable. note: an optional part is missing. problem: something that should work does not.
State = Literal["ok", "note", "problem"]
_MARKS = {"ok": " ", "note": "-", "problem": "!"}


class Finding(NamedTuple):
  """One checked part."""

  name: str
  text: str
  state: State = "ok"


def section(title: str, findings: Iterable[Finding]) -> str:
  """Returns a title and a line for each finding. The mark "!" stands for a problem."""
  findings = list(findings)
  width = max((len(finding.name) for finding in findings), default=0)
  lines = [f" {_MARKS[f.state]} {f.name:{width}}  {f.text}".rstrip() for f in findings]
  return "\n".join([title, *lines])
