"""Where several replicas reduce, and what is logged about it."""

import inspect
import json
import subprocess
import sys

import pytest
import tensorflow as tf

from sasa_tf.collectives import replica_group as groups
from sasa_tf.collectives import self_test
from sasa_tf.collectives.nccl_paths import ENVIRONMENT_VARIABLE, nccl_paths
from sasa_tf.errors import UserError
from sasa_tf.native import library
from sasa_tf.training import run, trainer
from sasa_tf.training.step import all_reduce_mode

HOST = "/job:localhost/replica:0/task:0/device:"


class Strategy:
  """Has what the choice depends on."""

  def __init__(self, *devices, replicas=None):
    self.num_replicas_in_sync = replicas or len(devices)
    self.extended = self
    self.worker_devices = [HOST + device for device in devices]


@pytest.fixture(autouse=True)
def _forget_groups():
  yield
  all_reduce_mode._shared_group.cache_clear()


needs_library = pytest.mark.skipif(
  not library.load().platforms, reason="the library has not been built"
)


@needs_library
def test_replicas_on_cpus_get_a_group_only_on_request(capsys):
  cpus = Strategy("CPU:0", "CPU:0")
  assert all_reduce_mode.replica_group(cpus, "between_programs", True) is None
  assert all_reduce_mode.replica_group(cpus, "auto", True) is None
  group = all_reduce_mode.replica_group(cpus, "in_program", True)
  assert (group.size, group.platform) == (2, "CPU")
  assert all_reduce_mode.replica_group(cpus, "in_program", True) is group
  printed = capsys.readouterr().err
  assert printed.startswith("--all_reduce=auto: the replicas reduce between two programs, because ")
  assert printed.endswith("because the replicas are not GPUs\n")


@pytest.mark.parametrize("mode", all_reduce_mode.MODES)
def test_a_single_replica_has_no_group(capsys, mode):
  assert all_reduce_mode.replica_group(Strategy("CPU:0"), mode, True) is None
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
  ("strategy", "enable_xla", "reason"),
  [
    (Strategy("GPU:0", "GPU:1"), False, "runtime.enable_xla=false"),
    (Strategy("GPU:0", "GPU:1", replicas=4), True, "some replicas belong to other processes"),
    (Strategy("GPU:0", "CPU:0"), True, "they run on CPU and GPU"),
    (
      Strategy("GPU:98", "GPU:99"),
      True,
      f"TensorFlow sees {len(tf.config.list_logical_devices('GPU'))} GPUs",
    ),
  ],
)
@needs_library
def test_unsupported_replicas(capsys, strategy, enable_xla, reason):
  with pytest.raises(UserError, match=f"--all_reduce=in_program: .*{reason}.*between_programs"):
    all_reduce_mode.replica_group(strategy, "in_program", enable_xla)
  if "CPU" in reason:
    reason = "the replicas are not GPUs"
  assert all_reduce_mode.replica_group(strategy, "auto", enable_xla) is None
  printed = capsys.readouterr().err
  assert f"between two programs, because {reason}" in printed if enable_xla else printed == ""


@pytest.mark.skipif(
  bool(tf.config.list_physical_devices("GPU")), reason="NCCL must fail, which it does without GPUs"
)
@needs_library
def test_gpus_that_nccl_cannot_connect(capsys, monkeypatch):
  """Here because there are none."""
  monkeypatch.setattr(all_reduce_mode, "unsupported_reason", lambda devices: None)
  monkeypatch.setattr(groups, "unsupported_reason", lambda devices: None)
  monkeypatch.setattr(groups, "_cuda_numbers", lambda devices: [0, 1])
  gpus = Strategy("GPU:0", "GPU:1")
  assert all_reduce_mode.replica_group(gpus, "auto", True) is None
  printed = capsys.readouterr().err
  assert "the replicas reduce between two programs, because " in printed
  assert "NCCL" in printed or "libcuda" in printed


@needs_library
def test_gpus_that_nccl_connects(capsys, monkeypatch):
  """Replaced by the CPU, because there are none."""
  monkeypatch.setattr(all_reduce_mode, "_reason_against", lambda *_: None)
  group = all_reduce_mode.replica_group(Strategy("CPU:0", "CPU:0"), "auto", True)
  assert group.size == 2
  assert capsys.readouterr().err == (
    "--all_reduce=auto: the replicas reduce within the XLA program\n"
  )


@needs_library
def test_wrong_first_sums_select_two_programs(capsys, monkeypatch):
  def wrong(group, devices):
    raise UserError("a first all-reduce returned wrong sums: expected 3.0; received [1.0].")

  monkeypatch.setattr(self_test, "check_sums", wrong)
  monkeypatch.setattr(all_reduce_mode, "_reason_against", lambda *_: None)
  assert all_reduce_mode.replica_group(Strategy("CPU:0", "CPU:0"), "auto", True) is None
  assert capsys.readouterr().err == (
    "--all_reduce=auto: the replicas reduce between two programs, because a first all-reduce "
    "returned wrong sums: expected 3.0; received [1.0]\n"
  )


def test_library_that_is_not_built(monkeypatch, capsys):
  monkeypatch.setattr(library, "load", lambda: library.Library((), "not built"))
  assert groups.unsupported_reason([HOST + "CPU:0"] * 2) == "not built"
  assert all_reduce_mode.replica_group(Strategy("GPU:0", "GPU:1"), "auto", True) is None
  assert capsys.readouterr().err.endswith("between two programs, because not built\n")


def test_several_processes():
  devices = [f"/job:worker/replica:0/task:{i}/device:GPU:0" for i in range(2)]
  assert groups.unsupported_reason(devices) == "they run in several processes"


class Gather:
  """Answers for two processes, of which this is the second."""

  def __init__(self, *others):
    self.others, self.sent = list(others), []

  def __call__(self, text):
    self.sent.append(text)
    return [self.others[len(self.sent) - 1], text]


@pytest.fixture
def created(monkeypatch):
  """Lists the arguments with which groups are created, whose NCCL is not needed."""
  calls = []

  def create(devices, timeout_seconds, ranks):
    calls.append((devices, timeout_seconds, ranks))
    return calls

  monkeypatch.setattr(all_reduce_mode, "_unsupported_reason", lambda *_: None)
  monkeypatch.setattr(all_reduce_mode, "create_tested_group", create)
  monkeypatch.setattr(all_reduce_mode, "new_group_id", lambda: b"\2" * 128)
  return calls


def several(gather, mode="in_program"):
  processes = all_reduce_mode.Processes(1, gather, str, str)
  strategy = Strategy("GPU:0", "GPU:1", replicas=5)
  return all_reduce_mode.replica_group(strategy, mode, True, processes)


def test_group_of_several_processes(created):
  gather = Gather(json.dumps([None, 3, "01" * 128]), "")
  assert several(gather) is not None
  ((devices, seconds, ranks),) = created
  assert len(devices) == 2 and seconds == 600
  assert ranks == (3, 5, b"\1" * 128)


@pytest.mark.parametrize(
  "answers",
  [
    [json.dumps(["the first has no GPU", 3, ""])],
    [json.dumps([None, 3, "01" * 128]), "the first has no GPU"],
  ],
  ids=["before", "after"],
)
def test_problem_of_another_process_is_one_of_all(created, answers):
  with pytest.raises(UserError, match="the first has no GPU"):
    several(Gather(*answers))


def test_own_problem_is_sent_to_all_processes(created, monkeypatch):
  def fail(*arguments, **options):
    raise UserError("wrong sums.")

  monkeypatch.setattr(all_reduce_mode, "create_tested_group", fail)
  gather = Gather(json.dumps([None, 3, "01" * 128]), "")
  with pytest.raises(UserError, match="wrong sums"):
    several(gather)
  assert gather.sent[1] == "wrong sums"


def test_process_without_nccl_does_not_let_the_others_wait(created, monkeypatch):
  def fail():
    raise UserError("no NCCL.")

  monkeypatch.setattr(all_reduce_mode, "new_group_id", fail)
  gather = Gather(json.dumps([None, 3, "01" * 128]))
  with pytest.raises(UserError, match="no NCCL"):
    several(gather)
  assert json.loads(gather.sent[0])[0] == "no NCCL" and not created


@pytest.mark.parametrize("index", [0, 1])
def test_several_processes_reduce_between_programs_by_default(created, capsys, index):
  def gather(text):
    raise AssertionError("a process with another --all_reduce would not answer")

  strategy = Strategy("GPU:0", "GPU:1", replicas=5)
  processes = all_reduce_mode.Processes(index, gather, str, str)
  assert all_reduce_mode.replica_group(strategy, "auto", True, processes) is None
  assert not created
  printed = capsys.readouterr().err
  assert ("because the replicas belong to several processes" in printed) == (index == 0)


@needs_library
def test_gpus_of_other_processes_are_not_counted(monkeypatch):
  names = [f"/job:worker/replica:0/task:{task}/device:GPU:0" for task in range(2)]
  logical = [tf.config.LogicalDevice(name, "GPU") for name in names]
  monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: logical)
  monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
  assert groups.unsupported_reason(names[1:]) is None
  logical.append(tf.config.LogicalDevice(names[1].replace("GPU:0", "GPU:1"), "GPU"))
  assert "split into several logical devices" in groups.unsupported_reason(names[1:])


@needs_library
def test_gpus_of_a_single_process(monkeypatch):
  names = [f"/job:localhost/replica:0/task:0/device:GPU:{i}" for i in range(2)]
  # Without a cluster, TensorFlow lists the devices without their process.
  logical = [tf.config.LogicalDevice(f"/device:GPU:{i}", "GPU") for i in range(2)]
  monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: logical)
  monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0", "GPU:1"])
  assert groups.unsupported_reason(names) is None


def test_auto_is_the_default():
  for function in (trainer.Trainer.__init__, run.run_experiment):
    assert inspect.signature(function).parameters["all_reduce"].default == "auto"
  # In a separate process: another program of this one may define the same flags.
  code = "from sasa_tf.bin import train; print(train.FLAGS['all_reduce'].default)"
  printed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
  assert printed == b"auto\n"


def test_unknown_mode():
  with pytest.raises(UserError, match=r"--all_reduce: expected one of auto, .*received 'inside'"):
    all_reduce_mode.replica_group(Strategy("CPU:0"), "inside", True)


def test_nccl_is_tensorflows_unless_chosen(monkeypatch):
  monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
  first, *_, last = nccl_paths()
  assert first.endswith("libtensorflow_framework.so.2") and last == "libnccl.so.2"
  monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/opt/nccl.so")
  assert nccl_paths() == ["/opt/nccl.so"]
