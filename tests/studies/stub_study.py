"""Studies whose trainings are `stub_train.py`, for the tests."""

import json
import pathlib
import sys

import yaml

from sasa_tf.studies.gpus import Gpu
from sasa_tf.studies.program import StudyProgram, plan_runs
from sasa_tf.studies.study_file import read_study

STUB = pathlib.Path(__file__).parent / "stub_train.py"
GPUS = [Gpu("GPU-0", "GPU 0"), Gpu("GPU-1", "GPU 1")]


def write_study(path, rows, **values):
  """Writes a study file; rows are names or {name: row}."""
  rows = rows if isinstance(rows, dict) else {name: {} for name in rows}
  content = {"name": "stub", "experiment": "stub", "rows": rows, **values}
  path.write_text(yaml.safe_dump(content, sort_keys=False))
  return path


def make_program(directory, rows, *, found=(), steps=2, delay=0.0, cost=True, **options):
  """Returns a program over stub trainings in `directory`."""
  study_options = {key: options.pop(key) for key in ("seeds", "target") if key in options}
  study = read_study(write_study(directory / "study.yaml", rows, **study_options))
  plan_options = {key: options.pop(key) for key in ("params_override", "order") if key in options}
  planned = plan_runs(study, directory / "out", num_gpus=len(found[:1]), **plan_options)
  options = {"processes_per_gpu": 1, "missing_gpus": lambda expected: [], **options}
  return StudyProgram(
    planned,
    list(found),
    train_command=lambda run: stub_command(run, steps, delay),
    cost_command=lambda run: cost_command(run, cost),
    **options,
  )


def stub_command(run, steps, delay):
  return [sys.executable, "-S", str(STUB), str(run.model_dir), str(steps), str(delay)]


def cost_command(run, succeeds):
  cost = json.dumps({"flops": {"mac": 2000, "paper": 2100}})
  if succeeds == "slow":
    return [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
  code = f"open({str(run.cost_file)!r}, 'w').write({cost!r})" if succeeds else "raise SystemExit(3)"
  return [sys.executable, "-S", "-c", code]


def results(directory):
  """Returns all result lines."""
  file = directory / "out" / "results.jsonl"
  return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def by_run(directory):
  """Returns {(row, seed): last result}."""
  return {(r["case"]["row"], r["case"]["seed"]): r for r in results(directory)}
