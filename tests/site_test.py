"""The documentation site builds without warnings, and its links work without a network."""

import html.parser
import importlib
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "site"))

import color_modes  # noqa: E402
import repository_pages  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """Returns the directory of the built site."""
  directory = tmp_path_factory.mktemp("site")
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={directory}"]
  environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
  built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert built.returncode == 0, built.stderr
  return directory


class Page(html.parser.HTMLParser):
  """The links and anchors of an HTML page.

  Attributes:
    links: targets of `<a>`.
    loaded: what the browser loads: images, scripts, styles.
    anchors: names that a link may have after `#`.
  """

  def __init__(self, text):
    super().__init__()
    self.links, self.loaded, self.anchors = set(), set(), {"", "__skip", "__codelineno"}
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
    if tag == "a" and attributes.get("href"):
      self.links.add(attributes["href"])
    elif tag == "link" and attributes.get("rel") not in ("canonical", "prev", "next"):
      self.loaded.add(attributes["href"])
    elif attributes.get("src"):
      self.loaded.add(attributes["src"])


@pytest.fixture(scope="module")
def pages(site):
  """Returns {path: Page} of all pages."""
  return {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}


def broken_links(pages):
  """Returns (page, link) of each link inside of the site without a file or an anchor."""
  for path, page in pages.items():
    for link in page.links | page.loaded:
      url = urllib.parse.urlsplit(link)
      if url.scheme in ("http", "https", "mailto", "data"):
        continue
      target = path if not url.path else path.parent / urllib.parse.unquote(url.path)
      target = pathlib.Path(os.path.normpath(target))
      anchor = urllib.parse.unquote(url.fragment)
      if anchor in ("only-light", "only-dark"):  # versions of an image
        anchor = ""
      if not target.is_file() or (target in pages and anchor not in pages[target].anchors):
        yield path, link


def test_links_and_anchors_exist(pages):
  assert len(pages) > 50
  assert not list(broken_links(pages))


def test_nothing_is_loaded_from_a_network(pages):
  for path, page in pages.items():
    assert not [url for url in page.loaded if "://" in url or url.startswith("//")], path


def test_broken_links_are_found(tmp_path):
  path = tmp_path / "a.html"
  path.write_text('<a href="#x">x</a> <a id="y" href="#y">y</a> <img src="missing.png">')
  found = {link for _, link in broken_links({path: Page(path.read_text())})}
  assert found == {"#x", "missing.png"}


@pytest.mark.parametrize("module", ["keras", "ops", "analysis"])
def test_reference_has_all_public_names(module):
  text = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
  names = re.findall(rf"^::: sasa_tf\.{module}\.(\w+)$", text, re.MULTILINE)
  assert sorted(names) == sorted(importlib.import_module(f"sasa_tf.{module}").__all__)


def test_classes_have_the_docstrings_of_their_base_classes(site):
  page = (site / "api" / "layers.html").read_text()
  assert "Multi-head self-attention over a window around each pixel" in page


@pytest.mark.parametrize(
  ("source", "text", "expected"),
  [
    ("README.md", "[a](docs/data.md#output)", "[a](data.md#output)"),
    ("README.md", "[a](LICENSE)", "[a](LICENSE.md)"),
    ("README.md", 'src="docs/images/window-dark.svg"', 'src="images/window-dark.svg"'),
    ("docs/study.md", "[a](../official_configs/README.md)", "[a](official_configs/README.md)"),
    ("docs/how_to/coco.md", "[a](../data.md)", "[a](../data.md)"),
    ("official_configs/README.md", "[a](../docs/study.md)", "[a](../study.md)"),
    (
      "official_configs/README.md",
      "[a](cifar10/resnet26.yaml)",
      "[a](cifar10/resnet26.yaml.md)",
    ),
    ("README.md", "[data.md](docs/data.md)", "[Data](data.md)"),
    ("docs/how_to/coco.md", "[data.md](../data.md#tfds)", "[Data](../data.md#tfds)"),
    ("docs/data.md", "`[a](../README.md)`", "`[a](../README.md)`"),
    ("docs/data.md", "```text\n[a](../README.md)\n```", "```text\n[a](../README.md)\n```"),
    ("docs/data.md", "[a](https://arxiv.org/)", "[a](https://arxiv.org/)"),
    ("docs/data.md", "[a](missing.md)", "[a](missing.md)"),  # a warning of MkDocs
  ],
)
def test_links_of_repository_files_are_rewritten(source, text, expected):
  assert repository_pages.rewrite_links(text, source) == expected


def test_images_of_both_color_modes_are_shown():
  text = """<picture>
  <source media="(prefers-color-scheme: dark)" srcset="a-dark.svg">
  <img src="a-light.svg" width="100%" alt="A window.">
</picture>"""
  assert color_modes.both_versions(text) == (
    '<div class="figure" markdown>\n![A window.](a-light.svg#only-light)\n'
    "![A window.](a-dark.svg#only-dark)\n</div>"
  )
