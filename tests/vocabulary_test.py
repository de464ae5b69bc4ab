"""The repository uses the field's terms; docs/glossary.md defines them."""

import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SUFFIXES = {".c", ".cc", ".cff", ".cu", ".cuh", ".h", ".md", ".py", ".sh", ".toml", ".yaml"}
NAMES = {"BUILD", "Makefile"}
DIRECTORIES = ("docs", "official_configs", "sasa_tf", "tests")

# Regular expression of a word that must not be used -> what to write instead.
REPLACEMENTS = {
  r"rooms?": "package, module",
  r"flavours?": "Keras binding, keras_api",
  r"kerases": "Keras 3 and tf_keras, Keras versions",
  r"contestants?": "candidates",
  r"(?<!tar )slopes?": "gradient, d_logits, dP, dS",
  r"ladders?": "selection rules",
  r"mend(s|ed|ing)?": "repair, fix",
  r"damaged?": "corrupt, corruption",
  r"anew": "again, recompute",
  r"(?<![</])pictures?(?!>)": "images",
  r"(?<!reset by )peers?(?!_health)": "other workers, baselines",
  r"(?<!Connection )refus(e|es|ed|al|als|ing)": "reject, raise ValueError, unsupported",
  r"told|tells? (of|how)": "reported, logged",
  r"not to be had": "unavailable",
  r"(leaves?|left|leaving) (it |them |these |this |those )?out": "skip, omit",
  r"in turns?(?! (left|right))": "interleaved",
  r"begin(s)? while the one before": "programmatic dependent launch (PDL)",
  r"halves of numbers": "packed bf16x2",
}


@functools.cache
def text_files():
  """Returns {path: text}, read once for all words."""
  files = [path for path in ROOT.iterdir() if path.is_file()]
  for directory in DIRECTORIES:
    files += (ROOT / directory).rglob("*")
  return {
    path: path.read_text()
    for path in sorted(files)
    if (path.suffix in SUFFIXES or path.name in NAMES) and path != pathlib.Path(__file__)
  }


def violations(text, pattern):
  """Returns [(line number, line)] of the lines with a word, also as part of an identifier."""
  word = re.compile(rf"(?<![a-z])({pattern})(?![a-z])", re.IGNORECASE)
  return [(number, line) for number, line in enumerate(text.splitlines(), 1) if word.search(line)]


@pytest.mark.parametrize("pattern", REPLACEMENTS)
def test_words_that_must_not_come_back(pattern):
  found = [
    f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
    for path, text in text_files().items()
    for number, line in violations(text, pattern)
  ]
  assert not found, f"write {REPLACEMENTS[pattern]} instead:\n" + "\n".join(found)


def test_violations_are_found():
  assert violations("a\nmend it", r"mend(s|ed|ing)?") == [(2, "mend it")]
  assert violations("_mended_file = 1", r"mend(s|ed|ing)?")
  assert not violations("recommended, amend", r"mend(s|ed|ing)?")
  assert len(text_files()) > 300
