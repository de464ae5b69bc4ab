"""The programs that are passed to the TPU compiler, and the report on its results."""

import contextlib
import re
import sys

import pytest
import tensorflow as tf

from sasa_tf.analysis.tpu import checks, compiler, report
from sasa_tf.errors import UserError

GIB = 2**30


def memory(**bytes_of):
  nothing = {"arguments": 0, "outputs": 0, "shared": 0, "temporaries": 0, "code": 0}
  return compiler.Memory(**nothing | bytes_of)


def test_every_stage_both_stems_and_both_dtypes_are_checked():
  names = [check.name for check in checks.all_checks(checks.TARGETS, ["bfloat16", "float32"])]
  assert len(names) == len(set(names)) == 14
  for dtype in ("bfloat16", "float32"):
    for stage in ("56x56x64", "28x28x128", "14x14x256", "7x7x512"):
      assert f"layer {stage}, forward + backward, batch 32, {dtype}" in names
    for stem in ("conv", "attention"):
      assert f"SASAResNet-50, {stem} stem, forward, batch 32, {dtype}" in names
  for stem in ("conv", "attention"):
    assert f"SASAResNet-50, {stem} stem, training step, batch 128, bfloat16" in names
  for target, what in (("layer", "forward + backward"), ("model", "forward"), ("step", "training")):
    chosen = checks.all_checks([target], ["float32"], 8)
    assert all(f", {what}" in check.name and "batch 8," in check.name for check in chosen)


def test_training_step_has_all_updated_variables_as_arguments(monkeypatch):
  monkeypatch.setattr(checks, "IMAGE_SIZE", 32)
  classifier = checks.model_workloads.SASAResNetClassifier
  monkeypatch.setattr(
    checks.model_workloads,
    "SASAResNetClassifier",
    lambda model_id, *rest, **arguments: classifier(
      26, *rest, **arguments | {"width_multiplier": 0.0625, "num_heads": 2}
    ),
  )
  function, specs = checks.step_check("conv", 2, "bfloat16").make()
  arguments = parameters(function, specs)
  assert arguments[0] == "2x32x32x3xf32"
  # Weights, their momenta, and batch norm's moving averages.
  assert len(arguments) > 3 * 26


def parameters(function, specs):
  """Returns the types of the lowered program's arguments."""
  text = compiler.lower(function, specs, stage="stablehlo")
  (signature,) = re.findall(r"func\.func (?:public )?@main\((.*?)\) ->", text)
  return re.findall(r"tensor<(\S+?)>", signature)


@pytest.mark.parametrize(("dtype", "short"), [("bfloat16", "bf16"), ("float32", "f32")])
def test_weights_of_a_layer_are_arguments_of_the_program(dtype, short):
  maps = f"2x7x7x32x{short}"
  kernels, tables = ["32x32xf32"] * 3, ["7x2xf32"] * 2
  arguments = parameters(*checks.layer_check(7, 32, 2, dtype).make())
  assert arguments[:2] == [maps, maps]
  assert sorted(arguments[2:]) == [*kernels, *tables]  # in the order of their use


def test_program_is_lowered_for_a_tpu(monkeypatch):
  check = checks.layer_check(28, 16, 4, "float32")
  assert "stablehlo.while" not in compiler.lower(*check.make(), stage="stablehlo")
  monkeypatch.setattr(compiler, "use_target_device", lambda _: contextlib.nullcontext())
  assert "stablehlo.while" in compiler.lower(*check.make(), stage="stablehlo")


def test_operation_without_xla_support_raises():
  with pytest.raises(compiler.CompileError, match=r"(?s)unsupported operations.*Eig"):
    compiler.lower(lambda x: tf.linalg.eigvals(x), [tf.TensorSpec([4, 4])])


def test_shared_memory_is_counted_once():
  assert memory(arguments=5, outputs=4, shared=3, temporaries=20, code=100).total == 126
  assert memory(temporaries=63 * 2**28).fits
  assert not memory(temporaries=63 * 2**28, code=1).fits


def test_rows_of_the_report():
  fits = checks.Result("a layer", 3.2, memory(arguments=GIB, temporaries=2 * GIB), None)
  assert fits.passed
  assert re.search(r"^a layer +3 +1,024 +0 +2,048 +0 +3,072  fits$", report.line(fits))
  large = checks.Result("a model", 3.2, memory(arguments=16 * GIB), None)
  assert not large.passed
  assert report.line(large).endswith("16,384  does not fit 15.75 GiB")
  failed = checks.Result("a model", 3.2, None, "Ran out of memory")
  assert not failed.passed
  assert report.line(failed).endswith("does not compile or fit:\nRan out of memory")
  assert report.header().index("argument") < report.header().index("total MiB")


def test_compile_error_does_not_stop_the_checks(monkeypatch):
  def compile_for_tpu(function, specs):
    if specs == ["large"]:
      raise compiler.CompileError("out of memory")
    return memory(code=1)

  monkeypatch.setattr(compiler, "require_compiler", lambda: None)
  monkeypatch.setattr(compiler, "compile_for_tpu", compile_for_tpu)
  large, small = checks.run_checks(
    [checks.Check(name, lambda name=name: (None, [name])) for name in ("large", "small")]
  )
  assert (large.name, large.memory, large.error) == ("large", None, "out of memory")
  assert (small.name, small.memory, small.error) == ("small", memory(code=1), None)


@pytest.mark.parametrize("package", ["libtpu", "jax.experimental"])
def test_missing_package_error_has_installation_instructions(monkeypatch, package):
  monkeypatch.setitem(sys.modules, package, None)
  monkeypatch.setattr(compiler.os, "environ", {})
  compiler._core.cache_clear()
  with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]' -c constraints\.txt"):
    compiler.require_compiler()
