"""MkDocs hook: adds the notebooks of docs/tutorials to the navigation, ordered by name."""

from __future__ import annotations

import pathlib

TUTORIALS = pathlib.Path(__file__).parent.parent / "tutorials"


def on_config(config):
  """Inserts the section after "Learn"."""
  notebooks = [f"tutorials/{path.name}" for path in sorted(TUTORIALS.glob("*.ipynb"))]
  if notebooks:
    config.nav.insert(2, {"Tutorials": notebooks})
  return config
