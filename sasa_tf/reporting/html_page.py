"""Self-contained HTML pages: style, head and embedded images."""

from __future__ import annotations

import base64
import html

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #8885; padding: .3rem .6rem; text-align: right; }
th.left, td.left { text-align: left; }
img { background: #fff; max-width: 100%; }
:root { color-scheme: light dark; }
"""


def html_page(title: str, body: str) -> str:
  """Returns a page with a heading.

  Args:
    title: plain text.
    body: HTML below the heading.
  """
  title = html.escape(title)
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n{body}\n"
    "</body>\n</html>\n"
  )


def embedded_png(content: bytes, description: str) -> str:
  """Returns an image element that holds a PNG file.

  Args:
    content: of the file.
    description: plain text for readers that do not see the image.
  """
  data = base64.b64encode(content).decode()
  return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'
