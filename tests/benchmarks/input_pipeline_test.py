"""Input pipeline against training step."""

import pytest

from sasa_tf.benchmarks import input_pipeline
from sasa_tf.benchmarks.input_pipeline import Throughput
from tests.training import tiny_run


@pytest.mark.parametrize(
  ("input_alone", "step_alone", "verdict"),
  [
    (1000, 100, "the step bounds the run: the input could give 10.00 times as many images"),
    (100, 250, "the input bounds the run: the step could take 2.50 times as many images"),
    (100, 105, "about as fast"),
  ],
)
def test_verdict(input_alone, step_alone, verdict):
  assert verdict in str(Throughput(input_alone, step_alone))


def test_figures_of_an_experiment(tmp_path):
  params = tiny_run.params(tiny_run.write_data(tmp_path))
  figures = input_pipeline.measure(params, seconds=0.1, steps_per_loop=2)
  assert figures.input_alone > figures.step_alone > 0
  assert figures.together > 0
  assert "training step alone" in str(figures)
