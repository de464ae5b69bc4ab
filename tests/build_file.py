"""Reads BUILD without Bazel, as its syntax is Python's."""

import ast
import pathlib


class BuildFile:
  """The libraries, programs and tests of a BUILD file.

  Attributes:
    libraries: {name: (paths of its sources, its deps)}.
    programs: names of the programs, in a list.
    tests: paths of the files that have a test target.
    test_packages: {directory of tests: packages that its targets depend on}.
  """

  def __init__(self, text: str, root: pathlib.Path):
    self._root = root
    self.libraries = {}
    self.programs = []
    self.tests = set()
    self.test_packages = {}
    for statement in ast.parse(text).body:
      value = getattr(statement, "value", None)
      if isinstance(statement, ast.Assign) and statement.targets[0].id == "TESTS":
        self.test_packages = ast.literal_eval(value)
      elif isinstance(value, ast.ListComp) and value.elt.func.id == "py_test":
        self.tests = self._files(value.generators[0].iter)
      elif isinstance(value, ast.ListComp) and value.elt.func.id == "py_binary":
        files = self._files(value.generators[0].iter)
        self.programs += sorted(pathlib.PurePosixPath(file).stem for file in files)
      elif isinstance(value, ast.Call) and value.func.id == "py_library":
        arguments = {keyword.arg: keyword.value for keyword in value.keywords}
        deps = ast.literal_eval(arguments["deps"]) if "deps" in arguments else []
        self.libraries[arguments["name"].value] = (
          self._files(arguments["srcs"]),
          {dep.removeprefix(":") for dep in deps},
        )

  def reachable(self, names):
    """Returns the names of the libraries that a target with these deps sees."""
    seen = set()
    waiting = list(names)
    while waiting:
      name = waiting.pop()
      if name not in seen:
        seen.add(name)
        waiting.extend(self.libraries[name][1])
    return seen

  def _files(self, node):
    """Returns the paths that a list of names or a glob stands for."""
    if isinstance(node, ast.List):
      return set(ast.literal_eval(node))
    exclude = [keyword.value for keyword in node.keywords if keyword.arg == "exclude"]
    return self._glob(node.args[0]) - set().union(*map(self._glob, exclude))

  def _glob(self, node):
    return {
      file.relative_to(self._root).as_posix()
      for pattern in ast.literal_eval(node)
      for file in self._root.glob(pattern)
      if file.is_file()
    }
