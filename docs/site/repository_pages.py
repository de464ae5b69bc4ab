"""MkDocs hook: pages of the files outside of docs/ to which the documents link.

README.md becomes the home page. Other Markdown files become pages as they are, and any other text
file becomes a page that shows it. Links between all of them are rewritten, so that the same files
can be read on GitHub.
"""

from __future__ import annotations

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent.parent
# Not the content of code: fenced blocks and spans are matched first.
_LINK = re.compile(
  r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)|(?P<span>`+)(?!`).+?(?<!`)(?P=span)(?!`)"
  r"|(?P<open>\]\(|\b(?:src|srcset|href)=\")(?P<target>[^)\"\s]+)",
  re.DOTALL | re.MULTILINE,
)
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


def rewrite_links(text: str, source: str) -> str:
  """Returns the Markdown text of a repository file with the links of the site.

  Args:
    text: Markdown.
    source: path of the file in the repository.
  """
  directory = posixpath.dirname(_site_path(source))

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
    files.append(File.generated(config, _site_path(path), content=content))
  return files


def on_page_markdown(markdown, page, **_):
  """Rewrites the links of a page."""
  return rewrite_links(markdown, _repository_path(page.file.src_uri))
