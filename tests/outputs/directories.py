"""A small directory layout, and directories of it with one text in all files."""

from sasa_tf.outputs.layout import DirectoryLayout

LAYOUT = DirectoryLayout("a test output", ("main",), r"main|parts/\d", "parts", r"unfinished.*")


def write(directory, text):
  """Writes a directory of the layout."""
  directory.mkdir(exist_ok=True, parents=True)
  (directory / "parts").mkdir()
  for name in ("main", "parts/0", "parts/1"):
    (directory / name).write_text(text)


def texts(directory):
  """Returns {relative path: text} of a directory."""
  files = sorted(path for path in directory.rglob("*") if path.is_file())
  return {path.relative_to(directory).as_posix(): path.read_text() for path in files}


def complete(text):
  return dict.fromkeys(("main", "parts/0", "parts/1"), text)
