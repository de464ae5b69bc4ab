"""Errors of Model Garden and Keras while they create what the configuration describes."""

import pytest
import tensorflow as tf
from official.core import task_factory

from sasa_tf.errors import ConfigError, UserError
from sasa_tf.training import checks, creation
from sasa_tf.training.run import run_experiment
from tests.training import tiny_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return tiny_run.write_data(tmp_path_factory.mktemp("data"))


def create(data, train=True, evaluate=False, **overrides):
  params = tiny_run.params(data, **overrides)
  task = task_factory.get_task(params.task)
  return creation.create_trainer(params, task, train=train, evaluate=evaluate)


def raising(error):
  def function(*arguments, **keywords):
    raise error

  return function


@pytest.mark.parametrize(
  ("owner", "name", "message"),
  [
    (creation.train_utils, "create_optimizer", r"^trainer\.optimizer_config\.learning_rate\."),
    (None, "build_metrics", r"^task: the training cannot be built: "),
  ],
)
def test_sections_are_named(owner, name, message, monkeypatch):
  from sasa_tf.tasks.image_classification import ImageClassificationTask

  error = TypeError("initial_learning_rate is odd\n  In call to configurable 'x' (<function y>)")
  monkeypatch.setattr(owner or ImageClassificationTask, name, raising(error))
  with pytest.raises(ConfigError, match=message) as caught:
    create("unused")
  assert "TypeError: initial_learning_rate is odd." in str(caught.value)
  assert "\n" not in str(caught.value)


def test_errors_of_traced_steps_name_keys_unless_they_are_ours():
  params = tiny_run.params("unused")

  @tf.function
  def step(raise_error):
    raise_error()

  message = r"^task\.losses\.one_hot=True: the training step cannot be built: one_hot is odd\."
  with pytest.raises(ConfigError, match=message), creation.translate_step_errors(params):
    step(raising(ValueError("one_hot is odd")))
  ours = lambda: checks.check_precision(None)  # noqa: E731
  with pytest.raises(AttributeError), creation.translate_step_errors(params):
    step(ours)
  with pytest.raises(tf.errors.InvalidArgumentError), creation.translate_step_errors(params):
    tf.debugging.assert_less(2, 1)


def test_evaluation_that_was_interrupted(data, tmp_path):
  """The weights are averaged, which only works in the scope of the strategy."""
  ema = {"trainer.optimizer_config.ema.average_decay": 0.5}
  params = tiny_run.params(data, steps=2, **ema)
  model_dir = str(tmp_path / "run")
  assert not run_experiment(tiny_run.EXPERIMENT, params, mode="train", model_dir=model_dir)
  assert "accuracy" in run_experiment(
    tiny_run.EXPERIMENT, params, mode="train_and_eval", model_dir=model_dir
  )


@pytest.mark.parametrize(
  "message",
  [
    "The loss value is 2.3, which is larger than the bound 0.5, happens 1 times.",
    "The loss value is NaN after training loop and it happens 3 times.",
  ],
)
def test_loss_above_its_bound_names_the_keys(message):
  params = tiny_run.params("unused", **{"trainer.loss_upper_bound": 0.5})
  expected = r"^The loss value is .*: trainer\.loss_upper_bound=0\.5, .*recovery_max_trials=0"
  with pytest.raises(UserError, match=expected), creation.translate_step_errors(params):
    raise RuntimeError(message)
