"""Throughput of the input pipeline and the training step."""

import os

import pytest

from sasa_tf.benchmarks import input_pipeline
from sasa_tf.benchmarks.input_pipeline import InputSpeed, Throughput
from sasa_tf.errors import UserError
from sasa_tf.training import experiment
from tests.training import tiny_run


@pytest.mark.parametrize(
  ("input_alone", "step_alone", "verdict"),
  [
    (
      1000,
      100,
      "step is the bottleneck: the input pipeline could supply 10.00 times as many images",
    ),
    (
      100,
      250,
      "pipeline is the bottleneck: the training step could process 2.50 times as many images",
    ),
    (100, 105, "about equally fast"),
  ],
)
def test_verdict_names_the_bottleneck(input_alone, step_alone, verdict):
  text = str(Throughput(InputSpeed(input_alone, 25e-6), step_alone))
  assert verdict in text and "25 microseconds of CPU time for an image" in text


def test_experiment_is_measured(tmp_path):
  params = tiny_run.params(tiny_run.write_data(tmp_path))
  throughput = input_pipeline.measure(params, seconds=0.1, steps_per_loop=2)
  assert throughput.input_alone.images_per_second > throughput.step_alone > 0
  cores = throughput.input_alone.images_per_second * throughput.input_alone.cpu_seconds
  assert 0 < cores <= 1.2 * (os.cpu_count() or 1)
  assert throughput.together > 0
  assert "training step alone" in str(throughput)


def test_records_of_another_task_are_named(tmp_path):
  data = tiny_run.write_data(tmp_path)
  override = f"task.train_data.input_path={data}/train-*,task.train_data.global_batch_size=2"
  params = experiment.load_experiment("retinanet_sasa_scenes", params_override=override)
  with pytest.raises(UserError, match="image/source_id"):
    input_pipeline.measure_input(params, seconds=0)
