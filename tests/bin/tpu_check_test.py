"""Flags and exit status of `tpu_check`, without the compiler."""

import pytest
from absl import flags
from absl.testing import flagsaver

from sasa_tf.analysis.tpu import compiler
from sasa_tf.bin import tpu_check
from sasa_tf.errors import UserError

FITS = compiler.Memory(arguments=1, outputs=1, shared=0, temporaries=1, code=1)
LARGE = compiler.Memory(arguments=10**11, outputs=1, shared=0, temporaries=1, code=1)


@pytest.fixture(autouse=True)
def _parsed_flags():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(["tpu_check"])


def run(monkeypatch, answer, **values):
  """Runs the program with `answer` in place of the compiler."""
  monkeypatch.setattr(compiler, "require_compiler", lambda: None)
  monkeypatch.setattr(compiler, "compile_for_tpu", answer)
  with flagsaver.flagsaver(**values):
    tpu_check.main(["tpu_check"])


@pytest.mark.parametrize(("flag", "value"), [("targets", "op"), ("dtypes", "float16")])
def test_unknown_values_raise(flag, value):
  with (
    flagsaver.flagsaver(**{flag: [value]}),
    pytest.raises(UserError, match=f"--{flag}: expected"),
  ):
    tpu_check.main(["tpu_check"])


def test_each_check_is_one_row(monkeypatch, capsys):
  run(monkeypatch, lambda *_: FITS, targets=["layer"], dtypes=["float32"], batch_size=2)
  header, *lines = capsys.readouterr().out.splitlines()
  assert header.startswith("compiled for a TPU v5e core")
  assert len(lines) == 4
  assert all("batch 2, float32" in line and line.endswith("  fits") for line in lines)


def test_exit_status_is_1_if_a_program_does_not_fit(monkeypatch, capsys):
  answers = iter([FITS, LARGE, FITS, FITS])
  with pytest.raises(SystemExit) as stopped:
    run(monkeypatch, lambda *_: next(answers), targets=["layer"], dtypes=["float32"])
  assert stopped.value.code == 1
  assert capsys.readouterr().out.count("does not fit 15.75 GiB") == 1


def test_exit_status_is_1_if_a_program_does_not_compile(monkeypatch, capsys):
  def fail(*_):
    raise compiler.CompileError("no such operation")

  with pytest.raises(SystemExit) as stopped:
    run(monkeypatch, fail, targets=["layer"], dtypes=["float32"])
  assert stopped.value.code == 1
  assert capsys.readouterr().out.count("no such operation") == 4
