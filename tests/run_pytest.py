"""Runs one test file with pytest: the main program of each of BUILD's test targets."""

import os
import sys


def _restrict_to_runfiles():
  """Removes the import paths to modules outside of the target's deps."""
  # The script's directory, with links resolved: that of the checkout.
  if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]
  # An editable installation would supply each missing package from the checkout.
  sys.meta_path[:] = [
    finder
    for finder in sys.meta_path
    if not getattr(finder, "__module__", "").startswith("__editable__")
  ]


def _options():
  """Returns pytest's options from Bazel's environment variables."""
  directory = os.environ["TEST_TMPDIR"]
  os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(directory, "hypothesis")
  os.environ["MPLCONFIGDIR"] = os.path.join(directory, "matplotlib")  # The default is read-only.
  # No cache: the runfiles are read-only.
  options = ["-p", "no:cacheprovider", f"--basetemp={os.path.join(directory, 'pytest')}"]
  if "XML_OUTPUT_FILE" in os.environ:
    options.append(f"--junitxml={os.environ['XML_OUTPUT_FILE']}")
  if "TESTBRIDGE_TEST_ONLY" in os.environ:  # bazel test --test_filter=EXPRESSION
    options += ["-k", os.environ["TESTBRIDGE_TEST_ONLY"]]
  return options


class _Deselection:
  """Counts the tests that their marks deselect."""

  count = 0

  def pytest_deselected(self, items):
    self.count += len(items)


def main():
  _restrict_to_runfiles()
  import pytest

  deselection = _Deselection()
  status = pytest.main([*_options(), *sys.argv[1:]], plugins=[deselection])
  if status == pytest.ExitCode.NO_TESTS_COLLECTED and deselection.count:
    return 0  # A file of slow or GPU tests alone.
  return status


if __name__ == "__main__":
  sys.exit(main())
