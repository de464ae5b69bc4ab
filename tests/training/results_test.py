"""The summary at the end of a training."""

import pytest

from sasa_tf import registry_imports  # noqa: F401
from sasa_tf.training import experiment, results


@pytest.mark.parametrize("name", ["sasa_resnet_digits", "retinanet_sasa_scenes"])
def test_summary_ends_with_the_export_command(name, tmp_path, capsys):
  results.print_summary(str(tmp_path), experiment.load_experiment(name))
  *_, last = capsys.readouterr().out.splitlines()
  assert last.split(maxsplit=1) == [
    "next",
    f"python -m sasa_tf.bin.export --model_dir={tmp_path} --output_dir={tmp_path}/exported",
  ]
