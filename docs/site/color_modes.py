"""MkDocs hook: images with a light and a dark version follow the color mode of the site.

On GitHub a `<picture>` selects the version by `prefers-color-scheme`, which the site's own switch
does not change.
"""

from __future__ import annotations

import re

_ELEMENT = re.compile(
  r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="(?P<dark>[^"]+)">\s*'
  r'<img src="(?P<light>[^"]+)"(?P<attributes>[^>]*)>\s*</picture>'
)


def both_versions(markdown: str) -> str:
  """Returns the text with each `<picture>` as two Markdown images."""

  def images(match: re.Match[str]) -> str:
    alt = re.search(r'alt="([^"]*)"', match["attributes"])
    text = alt[1] if alt else ""
    versions = (f"![{text}]({match[mode]}#only-{mode})" for mode in ("light", "dark"))
    return "\n".join(['<div class="figure" markdown>', *versions, "</div>"])

  return _ELEMENT.sub(images, markdown)


def on_page_markdown(markdown, **_):
  """Replaces the images of a page."""
  return both_versions(markdown)
