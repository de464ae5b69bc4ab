"""The process of a runtime: what it gets and returns, and how its failures are reported."""

import numpy as np
import pytest

from sasa_tf.errors import MissingExtraError, UserError
from sasa_tf.serving.runtimes import registry
from sasa_tf.serving.verification.runtime_process import run_in_fresh_process

# A runtime of files that hold a batch size; it multiplies numbers, and turns strings round.
DOUBLE = """
import numpy as np
class Model:
  version = "Double 1.0"
  def __init__(self, path):
    batch = int(open(path).read())
    self.signatures = {name: [batch or None] for name in ("prepared", "image_bytes")}
  def run(self, signature, inputs):
    assert inputs.ndim
    if signature == "image_bytes":
      return {"turned": np.array([each[::-1] for each in inputs], dtype=object)}
    return {"double": 2 * inputs, "batch": np.full(len(inputs), len(inputs))}
"""


@pytest.fixture
def run(tmp_path):
  """Returns a function that runs an adapter given as source."""

  def run_adapter(source, requests=None, batch=0, time_limit_seconds=60):
    (tmp_path / "adapter.py").write_text(source)
    model = tmp_path / "a [model].txt"
    model.write_text(str(batch))
    return run_in_fresh_process(
      registry.Runtime("Example", tmp_path / "adapter.py"),
      model,
      requests or {},
      time_limit_seconds=time_limit_seconds,
    )

  return run_adapter


def test_inputs_and_outputs_are_unchanged(run):
  images = np.arange(12, dtype=np.float32).reshape(3, 4)
  texts = np.array([b"", b"ends with zeros\0\0", b"\0.\xff"], dtype=object)
  requests = {
    "prepared/0": images,
    "prepared/1": images[:1],
    "image_bytes/0": texts,
    "other/0": images,
  }
  found = run(DOUBLE, requests)
  assert found.version == "Double 1.0"
  assert found.signatures == {"prepared", "image_bytes"}
  assert set(found.outputs) == {"prepared/0", "prepared/1", "image_bytes/0"}
  np.testing.assert_array_equal(found.outputs["prepared/0"]["double"], 2 * images)
  np.testing.assert_array_equal(found.outputs["prepared/0"]["batch"], [3, 3, 3])
  assert found.outputs["image_bytes/0"]["turned"].tolist() == [each[::-1] for each in texts]


def test_fixed_batches_are_filled(run):
  images = np.arange(5, dtype=np.float32)[:, None]
  found = run(DOUBLE, {"prepared/0": images}, batch=2).outputs["prepared/0"]
  np.testing.assert_array_equal(found["double"], 2 * images)
  np.testing.assert_array_equal(found["batch"], [2] * 5)


def test_sasa_tf_cannot_be_imported(run):
  with pytest.raises(UserError, match=r"Example cannot run a \[model\]\.txt.*ModuleNotFoundError"):
    run("import sasa_tf.ops")


def test_packages_of_this_process_can_be_imported(run, tmp_path, monkeypatch):
  for folder in ("packages", "working"):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / f"{folder}_module.py").write_text("")
  monkeypatch.syspath_prepend(tmp_path / "packages")  # as PYTHONPATH does
  monkeypatch.chdir(tmp_path / "working")
  monkeypatch.syspath_prepend("")
  run(f"import packages_module\n{DOUBLE}")
  with pytest.raises(UserError, match="No module named 'working_module'"):
    run("import working_module")
  # Beside the scripts lie files named after their runtimes.
  run(f"import sys\nassert not any('runtimes' in path for path in sys.path)\n{DOUBLE}")


def failure(run, source, **options):
  with pytest.raises(UserError) as caught:
    run(source, **options)
  message = str(caught.value)
  assert len(message.splitlines()) == 1
  return message


def test_errors_and_crashes_are_reported_in_one_paragraph(run):
  message = failure(
    run, "class Model:\n  def __init__(self, path):\n    raise ValueError('no model')"
  )
  assert message.startswith("Example cannot run a [model].txt: its process ended with status 1.")
  assert message.endswith("ValueError: no model")
  crash = "import os, sys\nprint('loading', flush=True)\nos.kill(os.getpid(), {signal})"
  message = failure(run, crash.format(signal=11))
  assert message.endswith("its process was killed by SIGSEGV. Its last lines: loading")
  assert "memory ran out" in failure(run, crash.format(signal=9))
  assert failure(run, "raise SystemExit(3)").endswith("ended with status 3. It printed nothing.")


def test_time_limit(run):
  message = failure(run, "import time\ntime.sleep(60)", time_limit_seconds=1)
  assert message.endswith("its process took more than the limit of 1 seconds. It printed nothing.")


def test_missing_runtime(monkeypatch):
  monkeypatch.setitem(
    registry.RUNTIMES, "tables", registry.Runtime("Rich", registry.RUN_MODEL, ("rich",))
  )
  assert registry.find_runtime("tables").name == "Rich"
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(MissingExtraError, match=r"format=tables needs rich.*sasa_tf\[report\]"):
    registry.find_runtime("tables")
  with pytest.raises(UserError, match="format paper cannot be verified: expected one of keras, "):
    registry.find_runtime("paper")
