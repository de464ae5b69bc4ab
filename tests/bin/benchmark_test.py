"""The benchmark program; what it measures is tested in tests/benchmarks."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


def benchmark(*arguments):
  done = subprocess.run(
    [sys.executable, "-m", "sasa_tf.bin.benchmark", *arguments],
    capture_output=True,
    text=True,
    timeout=300,
    cwd=ROOT,
  )
  return done.returncode, done.stdout, done.stderr


def test_flags_reach_the_measurement(tmp_path):
  results = tmp_path / "results.jsonl"
  status, output, errors = benchmark(
    "--candidates=conv3x3,auto",
    "--shapes=4x4x8",
    "--num_heads=2",
    "--kernel_size=3",
    "--border=mask",
    "--dilation_rate=2",
    "--modes=forward",
    "--batch_sizes=3",
    "--dtypes=bfloat16",
    "--jit=off",
    "--rounds=2",
    "--min_run_seconds=0",
    "--nomemory",
    "--threads=1",
    "--baselines=auto",
    f"--output={results}",
  )
  assert status == 0, errors
  assert (
    "op, forward, batch 3, 4x4x8, bfloat16, no XLA; 2 heads, window 3, dilation 2, border mask"
  ) in output
  assert "vs auto" in output and "peak MiB" not in output and "threads: 1" in output
  assert results.read_text().count("\n") == 2
  assert '"command": "python -m sasa_tf.bin.benchmark --candidates=conv3x3,auto' in (
    results.read_text()
  )


def test_invalid_flags_print_one_sentence():
  status, _, errors = benchmark("--shapes=56x56")
  assert status == 2 and "Traceback" not in errors
  assert "--shapes: expected HxWxC such as 56x56x64; received '56x56'" in errors
  for flag in ("--shapes", "--dtypes"):
    status, _, errors = benchmark(f"{flag}=")
    assert status == 2 and errors.startswith(f"error: {flag} is empty, so that nothing would be")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ["--target=serving", "--batch_sizes=0"],
      "--batch_sizes: expected positive integers; received",
    ),
    (["--target=serving", "--jit=off"], "--jit does not apply to --target=serving"),
    (["--target=serving", "--exports=a", "--image_size=64"], "--image_size describes networks to"),
    (["--target=serving", "--baselines=conv,a"], "--baselines: --target=serving compares with one"),
    (["--exports=a"], "--exports is a flag of --target=serving; received --target=op"),
    (
      ["--threads=1000000000"],
      "flag --threads=1000000000: 1000000000 is not an integer in the range",
    ),
    (["--kernel_size=4"], "flag --kernel_size=4: expected an odd number"),
    (
      [f"--batch_sizes={'1' + '0' * 5000}"],
      "--batch_sizes: expected positive integers; received '1000",
    ),
  ],
)
def test_flags_of_another_target_are_rejected(arguments, message):
  status, _, errors = benchmark(*arguments)
  assert status == 2 and "Traceback" not in errors
  assert message in errors


@pytest.mark.slow
def test_served_models(tmp_path):
  results = tmp_path / "results.jsonl"
  small = ["--model_id=26", "--image_size=32", "--width_multiplier=0.25"]
  status, output, errors = benchmark(
    "--target=serving",
    *small,
    "--candidates=conv,conv_stem+attention",
    "--batch_sizes=1,3",
    "--rounds=2",
    "--min_run_seconds=0",
    "--threads=1",
    f"--output={results}",
  )
  assert status == 0, errors
  lines = [json.loads(line) for line in results.read_text().splitlines()]
  found = {(each["case"]["candidate"], each["case"]["served"]) for each in lines}
  assert ("conv_stem+attention", "saved_model") in found and ("conv", "litert") in found
  assert all(each["difference"] < 1e-4 for each in lines)
  assert all(each["peak_bytes"] > 0 and each["load_seconds"] > 0 for each in lines)
  assert "vs conv" in output and "first call s" in output
  status, shown, errors = benchmark(f"--show={results}")
  assert (
    status == 0
    and shown.partition("difference  calls")[2] == output.partition("difference  calls")[2]
  ), errors
