"""Attention summaries of trainings: when they are due, their images, and runs of both tasks."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from sasa_tf.analysis import attention_maps
from sasa_tf.analysis.attention import MapGeometry
from sasa_tf.analysis.training_summaries import attention_summaries, window_images
from sasa_tf.analysis.training_summaries.attention_summaries import AttentionSummaries
from sasa_tf.analysis.training_summaries.schedule import SummarySchedule
from sasa_tf.errors import UserError
from sasa_tf.training import run
from sasa_tf.training.train_actions import TrainingContext
from tests.serving import small_detector
from tests.tasks.detection_records import write_scenes
from tests.training import tiny_run


class Clock:
  def __init__(self):
    self.seconds = 0.0

  def __call__(self):
    return self.seconds


def due_steps(schedule, clock, steps, seconds_per_loop, seconds_per_summary):
  """Returns the steps with a summary."""
  due = []
  for step in steps:
    clock.seconds += seconds_per_loop
    if schedule.is_due(step):
      clock.seconds += seconds_per_summary
      schedule.record(step, seconds_per_summary)
      due.append(step)
  return due


def test_summaries_at_an_interval():
  clock = Clock()
  schedule = SummarySchedule(50, 0, interval=10, clock=clock)
  due = due_steps(schedule, clock, [4, 8, 12, 16, 24, 32, 36, 48, 50], 1.0, 9.0)
  assert due == [4, 12, 24, 32, 48, 50]  # the first, those that pass a multiple, and the last


def test_automatic_summaries_take_at_most_a_percent_of_the_time():
  clock = Clock()
  schedule = SummarySchedule(10_000, 0, clock=clock)
  due = due_steps(schedule, clock, range(20, 10_001, 20), 1.0, 0.5)
  assert due[0] == 20 and due[-1] == 10_000
  # One more than the budget allows: the last step always has one.
  assert 8 <= len(due) - 2 <= 0.01 * clock.seconds / 0.5


def test_there_are_at_most_a_hundred_automatic_summaries():
  clock = Clock()
  schedule = SummarySchedule(10_000, 0, clock=clock)
  due = due_steps(schedule, clock, range(10, 10_001, 10), 10.0, 1e-6)
  assert len(due) == 101 and np.diff(due[:-1]).min() == 100


def geometry(size, kernel_size, dilation_rate=1, is_block=False):
  image_size = tuple(4 * length for length in size)
  kernel, rate = (kernel_size, kernel_size), (dilation_rate, dilation_rate)
  return MapGeometry(image_size, size, kernel, rate, 2, 1, is_block)


@pytest.mark.parametrize(
  ("size", "kernel_size", "dilation_rate", "covered"),
  [
    ((14, 21), 7, 1, 14 * 21),
    ((8, 8), 3, 1, 36),  # the edges are not covered
    ((2, 2), 7, 1, 4),  # one window, larger than the input
    ((10, 10), 3, 2, 9),
  ],
)
def test_tiled_windows_do_not_overlap(size, kernel_size, dilation_rate, covered):
  layer = geometry(size, kernel_size, dilation_rate)
  pixels = window_images.tiling_queries(layer)
  assert np.all(layer.is_inside(pixels))
  positions = layer.window_pixels(pixels)
  inside = positions[layer.is_inside(positions)]
  assert len(inside) == len(np.unique(inside, axis=0)) == covered
  weights = np.full((3, len(pixels), kernel_size, kernel_size), 0.25, np.float32)
  heat = window_images.heat_map(weights, pixels, layer)
  assert heat.shape == (3, *size) and np.count_nonzero(heat == 1) == 3 * covered


def test_blocks_of_a_stem_cover_the_image():
  layer = geometry((12, 12), 4, is_block=True)
  pixels = window_images.tiling_queries(layer)
  weights = np.random.default_rng(0).uniform(0.1, 1, (1, len(pixels), 4, 4))
  assert np.all(window_images.heat_map(weights, pixels, layer) > 0)


@pytest.mark.parametrize(
  ("size", "shown"), [((2, 2), (128, 128)), ((80, 60), (80, 60)), ((160, 80), (128, 64))]
)
def test_images_show_the_heat_in_color_and_the_rest_in_gray(size, shown):
  layer = geometry(tuple(length // 4 or 1 for length in size), 3)
  layer = MapGeometry.of(_Layer(), layer.size, size)
  heat = np.zeros((1, *layer.size), np.float32)
  heat[0, 0, 0] = 1
  image = window_images.window_images(np.full((1, *size, 3), 100, np.float32), heat, layer)
  assert image.shape == (1, *shown, 3) and image.dtype == np.uint8
  assert image[0, 0, 0].tolist() == [230, 159, 0]
  if layer.size != (1, 1):
    assert image[0, -1, -1].tolist() == [60, 60, 60]


class _Layer:
  kernel_size, dilation_rate, num_heads, strides = (3, 3), (1, 1), 2, 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return tiny_run.write_data(tmp_path_factory.mktemp("digits"))


def events(directory):
  """Returns {tag: {step: tensor}} of a TensorBoard log."""
  found = {}
  for file in directory.glob("events.out.tfevents.*"):
    for event in tf.compat.v1.train.summary_iterator(str(file)):
      for value in event.summary.value:
        found.setdefault(value.tag, {})[event.step] = tf.make_ndarray(value.tensor)
  return found


def test_run_that_is_resumed(data, tmp_path):
  actions = []

  def create(context):
    actions.append(AttentionSummaries(context, interval=4))
    return actions[-1]

  for steps in (4, 8):
    run.run_experiment(
      tiny_run.EXPERIMENT,
      tiny_run.params(data, steps=steps),
      mode="train",
      model_dir=str(tmp_path),
      train_actions=[create],
    )
  first, resumed = (action._images.numpy() for action in actions)
  np.testing.assert_array_equal(first, resumed)
  assert first.shape == (3, 8, 8, 3)
  written = events(tmp_path / "train")
  name = "group4_block1_spatial"
  assert sorted(tag for tag in written if tag.startswith("attention")) == [
    f"attention_{kind}/{name}" for kind in ("distance", "entropy", "padding_share", "windows")
  ]
  # The first loop of each process, multiples of the interval, and the last step.
  assert sorted(written[f"attention_entropy/{name}"]) == [2, 4, 6, 8]
  maps = attention_maps(actions[1]._context.model, resumed)[name].statistics
  last = {kind: written[f"attention_{kind}/{name}"][8] for kind in ("distance", "entropy")}
  np.testing.assert_allclose(last["entropy"], maps.entropy.mean(), rtol=1e-5)
  np.testing.assert_allclose(last["distance"], maps.image_distance.mean(), rtol=1e-5)
  width, height, *pngs = written[f"attention_windows/{name}"][8]
  assert (width, height, len(pngs)) == (b"128", b"128", 3)
  assert tf.io.decode_png(pngs[0]).shape == (128, 128, 3)


@pytest.fixture
def detector(tmp_path):
  """Returns the context of a detector that is not trained."""
  params = small_detector.params_of(write_scenes(tmp_path / "records"))
  task, model = small_detector.build(params)
  writer = tf.summary.create_file_writer(str(tmp_path / "train"))
  steps = itertools.count()
  strategy = tf.distribute.get_strategy()
  return TrainingContext(params, task, model, strategy, lambda: next(steps), writer)


def test_detector(detector, tmp_path, monkeypatch, capsys):
  action = AttentionSummaries(detector, interval=1)
  action({})
  detector.summary_writer.flush()
  tags = set(events(tmp_path / "train"))
  with_images = {tag.split("/")[1] for tag in tags if tag.startswith("attention_windows")}
  with_statistics = {tag.split("/")[1] for tag in tags if tag.startswith("attention_entropy")}
  assert with_images and all(name.startswith("group4") for name in with_images)
  assert with_images < with_statistics  # pyramid and head have statistics only

  # A device without memory for it does not end the training.
  def fail(self, step):
    raise tf.errors.ResourceExhaustedError(None, None, "no memory")

  monkeypatch.setattr(AttentionSummaries, "write", fail)
  action({})
  action({})
  assert capsys.readouterr().err.count("the memory is too small for --attention_summaries") == 1


def test_model_without_attention(detector):
  convolution = keras.Sequential([keras.layers.Conv2D(2, 1)])
  convolution.build([None, 8, 8, 3])
  with pytest.raises(UserError, match=r"--attention_summaries: the model .* no attention layer"):
    AttentionSummaries(detector._replace(model=convolution))


def test_unsupported_on_tpus_and_without_validation_data(data):
  params = tiny_run.params(data)
  params.runtime.distribution_strategy = "tpu"
  with pytest.raises(UserError, match="which TPUs do not support"):
    attention_summaries.check_supported(params, "train")
  params = tiny_run.params(f"{data}/missing")
  with pytest.raises(UserError, match=r"task\.validation_data\.input_path"):
    attention_summaries.check_supported(params, "train")
