"""The job scripts of docs/distribution.md start processes that form one cluster."""

import os
import pathlib
import re
import subprocess

import pytest
import yaml

from sasa_tf.errors import PreemptedError, UserError, WorkerLostError
from sasa_tf.training.multi_worker.cluster import read_cluster

DOCUMENT = pathlib.Path(__file__).parent.parent / "docs" / "distribution.md"


def code_block(language, text):
  """Returns the code block of a language that contains a text."""
  blocks = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
  (block,) = (block for block in blocks if text in block)
  return block


def run(script, folder, commands, **environment):
  """Runs a script with stand-ins for some commands; returns what it printed."""
  for name, lines in commands.items():
    path = folder / name
    path.write_text(f"#!/bin/bash\n{lines}\n")
    path.chmod(0o755)
  return subprocess.run(
    ["bash", "-euc", script],
    cwd=folder,
    env={"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **environment},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout


def clusters(printed):
  """Returns the cluster of each process, which printed its TF_CONFIG."""
  configs = [part for part in printed.split("TF_CONFIG=") if part.strip()]
  return [read_cluster(environment={"TF_CONFIG": config}) for config in configs]


def test_slurm(tmp_path):
  (tmp_path / "run.sh").write_text('echo "TF_CONFIG=$TF_CONFIG"')
  commands = {
    "scontrol": 'test "$*" = "show hostnames node[0-2]" && printf "node0\\nnode1\\nnode2\\n"',
    "srun": 'shift; for i in 0 1 2; do SLURM_PROCID=$i "$@"; done',
  }
  script = code_block("sh", "#SBATCH")
  found = clusters(run(script, tmp_path, commands, SLURM_JOB_NODELIST="node[0-2]"))
  assert [cluster.index for cluster in found] == [0, 1, 2]
  for cluster in found:
    assert cluster.addresses == ("node0:2222", "node1:2222", "node2:2222")


@pytest.fixture(scope="module")
def kubernetes():
  """Returns the service and the job."""
  service, job = yaml.safe_load_all(code_block("yaml", "kind: Job"))
  return service, job


def test_kubernetes_cluster(kubernetes, tmp_path):
  service, job = kubernetes
  name, pods = job["metadata"]["name"], job["spec"]["completions"]
  (container,) = job["spec"]["template"]["spec"]["containers"]
  assert container["command"] == ["bash", "-c"]
  commands = {"python": 'echo "TF_CONFIG=$TF_CONFIG"'}
  printed = "".join(
    run(container["args"][0], tmp_path, commands, JOB_COMPLETION_INDEX=str(index))
    for index in range(pods)
  )
  found = clusters(printed)
  assert [cluster.index for cluster in found] == list(range(pods))
  # The names of the pods of an indexed job, below that of their service.
  expected = tuple(f"{name}-{i}.{service['metadata']['name']}:2222" for i in range(pods))
  assert all(cluster.addresses == expected for cluster in found)


def test_kubernetes_job(kubernetes):
  service, job = kubernetes
  spec, pod = job["spec"], job["spec"]["template"]["spec"]
  assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": job["metadata"]["name"]}}
  assert spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"]
  assert pod["subdomain"] == service["metadata"]["name"]
  assert pod["restartPolicy"] == "Never"  # which podFailurePolicy requires
  (rule,) = spec["podFailurePolicy"]["rules"]
  final = set(rule["onExitCodes"]["values"])
  assert final == {1, UserError.exit_status}
  assert not final & {WorkerLostError.exit_status, PreemptedError.exit_status}
