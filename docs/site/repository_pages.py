"""MkDocs hook: pages of the files outside of docs/ to which the documents link.

README.md becomes the home page. Other Markdown files become pages as they are, and any other text
file becomes a page that shows it. Links between all of them are rewritten, so that the same files
can be read on GitHub.
"""

from __future__ import annotations

import pathlib
import posixpath
import re

from mkdocs.structure.files import File, InclusionLevel
from mkdocs.utils import get_relative_url

ROOT = pathlib.Path(__file__).parent.parent.parent
# Not the content of code: fenced blocks and spans are matched first.
_LINK = re.compile(
  r"^ *(?P<fence>`{3,}|~{3,}).*?^ *(?P=fence)|(?P<span>`+)(?!`).+?(?<!`)(?P=span)(?!`)"
  r"|(?P<open>\]\(|\b(?:src|srcset|href)=\")(?P<target>[^)\"\s]+)",
  re.DOTALL | re.MULTILINE,
)
# A link whose text is the name of its file.
_FILE_NAME = re.compile(r"\[(?P<name>[\w/]+\.md)\]\((?P<target>[\w/.]*?\b(?P=name)(?:#[\w-]+)?)\)")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".cff": "yaml"}


def _site_path(path: str) -> str:
  """Returns the path of a repository file in the site's sources."""
  if path == "README.md":
    return "index.md"
  if path.startswith("docs/"):
    return path.removeprefix("docs/")
  return path if path.endswith(".md") else f"{path}.md"


def _repository_path(site_path: str) -> str:
  """Returns the path of a page's file in the repository."""
  if site_path == "index.md":
    return "README.md"
  if (ROOT / "docs" / site_path).exists():
    return f"docs/{site_path}"
  return site_path if (ROOT / site_path).exists() else site_path.removesuffix(".md")


def _target(link: str, source: str) -> tuple[str, str] | None:
  """Returns (repository path, anchor) of a link in a repository file, or None for other links."""
  path, hash_sign, anchor = link.partition("#")
  if not path or "://" in link or link.startswith(("/", "mailto:")):
    return None
  return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)), hash_sign + anchor


def _title(match: re.Match[str], source: str) -> str:
  """Returns the heading of the file of a link, or the link's text if the file has none."""
  target = _target(match["target"], source)
  file = ROOT / target[0] if target else None
  heading = re.match(r"# (.+)", file.read_text()) if file and file.is_file() else None
  return heading[1] if heading else match["name"]


def rewrite_links(text: str, source: str) -> str:
  """Returns the Markdown text of a repository file with the links of the site.

  File names as the text of a link become the titles of the pages.

  Args:
    text: Markdown.
    source: path of the file in the repository.
  """
  directory = posixpath.dirname(_site_path(source))
  text = _FILE_NAME.sub(lambda match: f"[{_title(match, source)}]({match['target']})", text)

  def rewritten(match: re.Match[str]) -> str:
    link = match["target"]
    target = link and _target(link, source)
    if not target or not (ROOT / target[0]).is_file():
      return match[0]
    return match["open"] + posixpath.relpath(_site_path(target[0]), directory or ".") + target[1]

  return _LINK.sub(rewritten, text)


def _links(text: str, source: str) -> set[str]:
  """Returns the repository files outside of docs/ to which a document links."""
  targets = (_target(match["target"], source) for match in _LINK.finditer(text) if match["target"])
  paths = {target[0] for target in targets if target}
  return {path for path in paths if not path.startswith("docs/") and (ROOT / path).is_file()}


def _source_page(path: str) -> str:
  """Returns the page that shows a text file."""
  language = _LANGUAGES.get(posixpath.splitext(path)[1], "text")
  text = (ROOT / path).read_text().rstrip()
  return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n`````{language}\n{text}\n`````\n"


def on_files(files, config):
  """Adds the pages of the files outside of docs/."""
  pages = {}
  pending = {"README.md": (ROOT / "README.md").read_text()}
  for file in files.documentation_pages():
    if file.src_uri.endswith(".md"):
      pending[f"docs/{file.src_uri}"] = file.content_string
  while pending:
    source, text = pending.popitem()
    if not source.startswith("docs/"):
      pages[source] = text
    for path in _links(text, source) - set(pages) - set(pending):
      if path.endswith(".md"):
        pending[path] = (ROOT / path).read_text()
      else:
        pages[path] = _source_page(path)
  for path, content in sorted(pages.items()):
    # Those of mkdocs.yml are in the navigation, the others where documents link to them.
    inclusion = InclusionLevel.NOT_IN_NAV
    files.append(File.generated(config, _site_path(path), content=content, inclusion=inclusion))
  return files


def on_page_markdown(markdown, page, **_):
  """Rewrites the links of a page."""
  return rewrite_links(markdown, _repository_path(page.file.src_uri))


def on_page_content(html, page, files, **_):
  """Rewrites the links of a notebook, which MkDocs takes as HTML, to Markdown files."""
  if not page.file.src_uri.endswith(".ipynb"):
    return html

  def rewritten(match: re.Match[str]) -> str:
    target = _target(match["link"], f"docs/{page.file.src_uri}")
    file = target and files.src_uris.get(_site_path(target[0]))
    if not file:
      return match[0]
    return f'href="{get_relative_url(file.url, page.file.url)}{target[1]}"'

  return re.sub(r'href="(?P<link>[^"#:]+\.(?:md|ipynb)(?:#[^"]*)?)"', rewritten, html)
