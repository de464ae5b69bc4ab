"""The benchmark program; what it measures is tested in tests/benchmarks."""

import pathlib
import subprocess
import sys

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
