"""Writes the page: one HTML file without references to others."""

from __future__ import annotations

import base64
import importlib.resources
import json
from typing import Any

# JavaScript modules of the directory page, imported as "explorer/NAME".
_PREFIX = "explorer/"


def render_page(data: dict[str, Any]) -> str:
  """Returns the page for the data of `report_data`."""
  files = {
    file.name: file.read_text(encoding="utf-8")
    for file in importlib.resources.files(__package__).joinpath("page").iterdir()
  }
  # Modules that import each other within one file: an import map from names to their content.
  imports = {
    _PREFIX + name.removesuffix(".js"): "data:text/javascript;base64,"
    + base64.b64encode(content.encode()).decode("ascii")
    for name, content in sorted(files.items())
    if name.endswith(".js")
  }
  page = files["page.html"]
  for marker, content in {
    "/* style.css */": files["style.css"],
    "/* import map */": json.dumps({"imports": imports}),
    "/* data */": _json(data),
  }.items():
    page = page.replace(marker, content)
  return page


def _json(data: dict[str, Any]) -> str:
  """Returns JSON that cannot end the script element that holds it."""
  text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
  return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
