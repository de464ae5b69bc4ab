"""Stands in for the train program: logs steps and an evaluation; its name decides how it behaves.

Usage: stub_train.py MODEL_DIR STEPS SECONDS_PER_STEP
"""

import json
import os
import pathlib
import signal
import sys
import time

model_dir, steps, delay = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
row = model_dir.parent.name
model_dir.mkdir(parents=True, exist_ok=True)
log = model_dir / "run_log.jsonl"
checkpoint = model_dir / "ckpt-last.index"
start = time.monotonic()
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))


def write(event, step, **values):
  seconds = round(time.monotonic() - start, 3)
  with log.open("a") as file:
    file.write(json.dumps({"event": event, "step": step, "seconds": seconds, **values}) + "\n")


print(f"gpu {os.environ['CUDA_VISIBLE_DEVICES']}", flush=True)
first = int(checkpoint.read_text()) if checkpoint.exists() else 0
write("begin", first, train_steps=steps, batch_size=8, parameters=100, device="stub")
if row == "fails":
  print("Traceback\nerror: the data is missing", file=sys.stderr)
  sys.exit(2)
if row.startswith("lost") and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0":
  print("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access", file=sys.stderr)
  sys.exit(1)
if row == "waits" and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0":
  time.sleep(60)
if row == "deaf":
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
for step in range(first + 1, steps + 1):
  time.sleep(delay)
  peak = {"kind": "device", "bytes": 1000 * step}
  write("train", step, metrics={"loss": 1.0}, peak_memory=peak)
  checkpoint.write_text(str(step))
  if stopped:
    sys.exit(75)
seed = int(model_dir.name.removeprefix("seed"))
accuracy = 0.9 + 0.01 * seed + (0.02 if row == "better" else 0)
write("evaluation", steps, metrics={"accuracy": accuracy})
write("end", steps)
