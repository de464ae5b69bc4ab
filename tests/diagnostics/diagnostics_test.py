"""What `sasa doctor` reports."""

import collections

import pytest
import tensorflow as tf

from sasa_tf.diagnostics import findings, implementations, machine, packages


def test_section_aligns_names_and_marks_states():
  found = [findings.Finding("a", "1"), findings.Finding("long", "2", "problem")]
  assert findings.section("title", found) == "title\n   a     1\n ! long  2"


def test_core_packages_have_versions():
  states = {finding.name: finding for finding in packages.check_core()}
  assert states["tensorflow"].text == tf.__version__
  assert all(finding.state == "ok" for finding in states.values())


def test_missing_package_of_an_extra_is_named_with_its_cure(monkeypatch):
  requires = ["numpy; extra == 'good'", 'no-such-package>=2; extra == "bad"', "x; extra == 'dev'"]
  monkeypatch.setattr(packages.importlib.metadata, "requires", lambda name: requires)
  bad, good = packages.check_extras()
  assert bad.state == "note" and good.text == "installed"
  assert bad.text == "lacks no-such-package: pip install 'sasa_tf[bad]'"


def test_full_disk_is_a_problem(monkeypatch):
  usage = collections.namedtuple("usage", "free")
  monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage(1 << 20))
  states = {finding.name: finding.state for finding in machine.check_machine()}
  assert states["disk, temporary"] == "problem" and states["memory"] == "ok"


def test_every_implementation_is_measured_and_agrees():
  found = list(implementations.check_implementations())
  assert [finding.name for finding in found][:2] == ["reference", "blocked"]
  assert all(finding.state == "ok" and " ms, " in finding.text for finding in found)


@pytest.mark.parametrize("failure", ["wrong values", "error"])
def test_broken_implementation_is_a_problem(failure, monkeypatch):
  def attention(query, *arguments, implementation, **options):
    if implementation == "reference":
      return query * 1.0
    if failure == "error":
      raise ValueError("no kernel")
    return query * 1.5

  monkeypatch.setattr(implementations.ops, "local_attention_2d", attention)
  monkeypatch.setattr(
    implementations,
    "_step",
    lambda name: lambda query, *rest: (attention(query, implementation=name), [query]),
  )
  reference, broken, *_ = implementations.check_implementations()
  assert reference.state == "ok" and broken.state == "problem"
  assert "no kernel" in broken.text or "difference 5.0e-01" in broken.text
