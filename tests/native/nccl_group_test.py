"""All-reduce by NCCL, with a fake NCCL and CUDA driver: which calls it gets, and its errors."""

import ctypes
import subprocess
import time

import pytest

from sasa_tf.native import build, cache
from tests.native.stub_kernels import needs_compiler


def has_driver():
  try:
    ctypes.CDLL("libcuda.so.1")
  except OSError:
    return False
  return True


pytestmark = [
  needs_compiler,
  pytest.mark.skipif(has_driver(), reason="the fake replaces a driver, and here is one"),
]
NOT_READY = 600


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
  """Yields the groups' code, the fake, and its path."""
  folder = tmp_path_factory.mktemp("nccl")
  compiler = build.find_compilers(architectures=()).cxx
  here = __file__.rpartition("/")[0]
  shared = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", f"-I{cache.SOURCE_ROOT}"]
  # By this name, the driver is then found among the loaded libraries.
  fake, code = folder / "libfake_nccl.so", folder / "libcode.so"
  name = "-Wl,-soname,libcuda.so.1"
  subprocess.run([*shared, f"{here}/fake_nccl.cc", name, "-o", str(fake)], check=True)
  sources = [str(path) for path in cache.sources(".cc") if path.parent.name == "collectives"]
  command = [*shared, *sources, f"{here}/call_all_reduce.cc", "-ldl", "-o", str(code)]
  subprocess.run(command, check=True)
  return ctypes.CDLL(str(code)), ctypes.CDLL(str(fake)), str(fake)


class Group:
  """A group of two replicas on GPUs 1 and 3."""

  def __init__(
    self, libraries, number, timeout_seconds=60.0, first_timeout_seconds=60.0, first=0, total=2
  ):
    self.code, self.fake, path = libraries
    for name in ("id", "create", "check"):
      getattr(self.code, f"sasa_tf_group_{name}").restype = ctypes.c_char_p
    for name in ("", "_start", "_finish"):
      getattr(self.code, f"call_all_reduce{name}").restype = ctypes.c_char_p
    self.number = ctypes.c_int64(number)
    paths = f"/missing/libnccl.so.2\n{path}".encode()
    limits = ctypes.c_double(first_timeout_seconds), ctypes.c_double(timeout_seconds)
    group_id = None
    if total > 2:
      group_id = ctypes.create_string_buffer(128)
      assert self.code.sasa_tf_group_id(paths, group_id) == b""
    self.error = self.code.sasa_tf_group_create(
      self.number, 2, (ctypes.c_int32 * 2)(1, 3), first, total, group_id, paths, *limits
    ).decode()

  def reduce(self, replica, elements=4, is_bfloat16=False, stream=7, program=0):
    array = (ctypes.c_float * elements)()
    return self.code.call_all_reduce(
      self.number,
      replica,
      ctypes.c_int64(program),
      array,
      ctypes.c_int64(elements),
      int(is_bfloat16),
      ctypes.c_void_p(stream),
    ).decode()

  def call_part(self, part, replica, slot, array, stream=7):
    function = getattr(self.code, f"call_all_reduce_{part}")
    arguments = (ctypes.c_int64(slot), array, ctypes.c_int64(len(array)), ctypes.c_void_p(stream))
    return function(self.number, replica, *arguments).decode()

  def log(self):
    return (ctypes.c_char * 1000).in_dll(self.fake, "fake_log").value.decode().split()

  def check(self):
    return self.code.sasa_tf_group_check(self.number).decode()

  def get(self, name, kind=ctypes.c_int):
    return kind.in_dll(self.fake, f"fake_{name}").value

  def set(self, name, value):
    ctypes.c_int.in_dll(self.fake, f"fake_{name}").value = value


def clear_log(fake):
  (ctypes.c_char * 1000).in_dll(fake, "fake_log").value = b""


@pytest.fixture
def make_group(libraries, request):
  groups = []

  def make(**arguments):
    for name in ("init_result", "all_reduce_result", "async_error", "event_result"):
      ctypes.c_int.in_dll(libraries[1], f"fake_{name}").value = 0
    for name in ("reduced", "aborted", "destroyed", "events"):
      ctypes.c_int.in_dll(libraries[1], f"fake_{name}").value = 0
    clear_log(libraries[1])
    groups.append(Group(libraries, number=len(request.node.nodeid), **arguments))
    return groups[-1]

  yield make
  for group in groups:
    group.code.sasa_tf_group_close(group.number)


def test_each_replica_has_a_communicator_and_uses_the_stream_of_xla(make_group):
  group = make_group()
  assert group.error == ""
  for replica, gpu in enumerate((1, 3)):
    assert group.reduce(replica, stream=50 + gpu) == ""
    assert group.get("last_comm", ctypes.c_void_p) == 100 + gpu
    assert group.get("last_stream", ctypes.c_void_p) == 50 + gpu
    assert group.get("last_type") == 7
  assert group.get("reduced") == 2 and group.get("in_group") == 0
  assert group.reduce(0, is_bfloat16=True) == ""
  assert group.get("last_type") == 9
  assert group.check() == ""


def test_replicas_of_several_processes(make_group):
  """The second of two processes, with two replicas each."""
  group = make_group(first=2, total=4, first_timeout_seconds=0.2)
  assert group.error == "" and group.get("ranks") == 4
  assert group.log() == ["2:rank", "3:rank"]
  group.set("event_result", NOT_READY)
  assert group.reduce(1) == ""
  assert group.get("last_comm", ctypes.c_void_p) == 103
  time.sleep(0.3)
  assert "replica 3 is waiting; these replicas did not reach it: 2." in group.check()


def test_closing_frees_the_communicators(make_group):
  group = make_group()
  group.code.sasa_tf_group_close(group.number)
  assert (group.get("destroyed"), group.get("aborted")) == (2, 0)
  assert group.check() == ""


def test_missing_nccl_names_all_places(libraries):
  code, _, _ = libraries
  code.sasa_tf_group_create.restype = ctypes.c_char_p
  gpus = (ctypes.c_int32 * 2)(0, 1)
  paths = b"/missing/a.so\nlibdl.so.2"
  error = code.sasa_tf_group_create(
    ctypes.c_int64(1), 2, gpus, 0, 2, None, paths, ctypes.c_double(1), ctypes.c_double(1)
  ).decode()
  assert error.startswith("NCCL was not found in /missing/a.so: ")
  assert "; libdl.so.2: " in error


def test_failed_connection_is_reported(libraries, make_group):
  group = make_group()
  group.set("init_result", 2)
  failed = Group(libraries, number=10**6)
  assert failed.error == "NCCL: unhandled system error (a cable is missing)"


def test_error_of_a_call_aborts_all_communicators(make_group):
  group = make_group()
  group.set("all_reduce_result", 2)
  message = "replica 1: NCCL: unhandled system error (a cable is missing)"
  assert group.reduce(1) == message
  assert group.get("aborted") == 2 and group.get("in_group") == 0
  assert group.reduce(0) == message and group.check() == message


def test_asynchronous_error_aborts_all_communicators(make_group):
  group = make_group()
  assert group.reduce(0) == ""
  group.set("async_error", 6)
  assert group.check().startswith("replica 0: NCCL: unhandled system error")
  assert group.get("aborted") == 2
  assert group.check() and group.get("aborted") == 2  # once


def test_different_arrays_abort_before_nccl_gets_them(make_group):
  group = make_group()
  assert group.reduce(0, elements=4) == ""
  assert "replica 0 has float32[4], and replica 1 has float32[5]" in group.reduce(1, elements=5)
  assert (group.get("reduced"), group.get("aborted")) == (1, 2)


def test_asynchronous_all_reduce_runs_beside_the_stream_of_xla(make_group):
  group, arrays = make_group(), [(ctypes.c_float * 4)() for _ in range(2)]
  clear_log(group.fake)
  for slot, array in enumerate(arrays):
    assert group.call_part("start", 0, slot, array) == ""
  for slot, array in enumerate(arrays):
    assert group.call_part("finish", 0, slot, array) == ""
  # The own stream waits for that of XLA; one event behind the sum is the monitor's.
  start = ["7:record", "1000:wait", "1000:reduce", "1000:record", "1000:record"]
  assert group.log() == [*start, *start, "7:wait", "7:wait"]
  assert group.get("last_comm", ctypes.c_void_p) == 101


def test_array_that_xla_copies_meanwhile_is_an_error(make_group):
  group, array, copy = make_group(), (ctypes.c_float * 4)(), (ctypes.c_float * 4)()
  assert group.call_part("start", 0, 0, array) == ""
  assert "XLA has copied an array" in group.call_part("finish", 0, 0, copy)
  assert group.get("aborted") == 2


def test_gpu_that_waits_too_long_aborts(make_group):
  group = make_group(first_timeout_seconds=0.2)
  group.set("event_result", NOT_READY)
  assert group.reduce(0) == "" and group.reduce(0) == ""
  assert group.check() == ""
  time.sleep(0.3)
  failure = group.check()
  assert "within 0 s: replica 0 is waiting; these replicas did not reach it: 1." in failure
  assert failure.endswith("or are still being compiled")
  assert group.get("aborted") == 2
  assert group.reduce(1) == failure


def test_time_limit_is_shorter_once_a_program_has_run(make_group):
  group = make_group(timeout_seconds=0.2)
  assert group.reduce(0) == "" and group.reduce(1) == ""
  assert group.check() == ""
  group.set("event_result", NOT_READY)
  assert group.reduce(0, program=1) == "" and group.reduce(1, program=1) == ""
  time.sleep(0.3)
  assert group.check() == ""  # one of them may be compiled
  group.set("event_result", 0)
  assert group.check() == ""
  group.set("event_result", NOT_READY)
  assert group.reduce(0, program=1) == ""
  time.sleep(0.3)
  assert group.check().endswith("these replicas did not reach it: 1. Their programs failed")


def test_host_may_be_steps_ahead_of_a_gpu_that_makes_progress(make_group):
  group = make_group(first_timeout_seconds=0.2, timeout_seconds=0.2)
  group.set("event_result", NOT_READY)
  for replica in (0, 1):
    for _ in range(300):
      assert group.reduce(replica) == ""
  assert group.get("events") == 2 * 256  # not more, until these have completed
  group.set("event_result", 0)
  time.sleep(0.3)
  assert group.check() == ""
  assert group.get("events") == 2 * 257  # behind the last all-reduce
  group.set("event_result", NOT_READY)
  assert group.check() == ""
  time.sleep(0.3)
  assert "all replicas of this process have started it" in group.check()
