"""The detection task: labels, a training and an evaluation step, COCO metrics, checkpoints."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tf_keras
from official.core import exp_factory, task_factory

from sasa_tf.configs import retinanet as configs
from sasa_tf.errors import UserError
from sasa_tf.tasks import retinanet
from sasa_tf.tasks.coco_categories import COCO_IDS
from sasa_tf.tasks.coco_evaluator import COCOEvaluator
from tests.tasks.detection_records import SCENES, write_annotations, write_scenes

SMALL = {
  "model": {
    "num_classes": 4,
    "input_size": [64, 64, 3],
    "max_level": 5,
    "backbone": {
      "sasa_resnet": {
        "model_id": 26,
        "width_multiplier": 0.125,
        "attention_groups": [4],
        "zero_init_residual": False,  # all weights have gradients in the first step
      }
    },
    # The implementation that is the fastest to trace.
    "decoder": {"sasa_fpn": {"num_filters": 16, "implementation": "reference"}},
    "head": {"num_filters": 16, "num_convs": 1, "implementation": "reference"},
    "norm_activation": {"use_sync_bn": False},
  },
  "train_data": {"tfds_name": "", "global_batch_size": 3, "shuffle_buffer_size": 3},
  "validation_data": {"tfds_name": "", "global_batch_size": 2},
}


def task_of(records="", **changes):
  task = exp_factory.get_exp_config("retinanet_sasa_coco").task
  task.override(SMALL)
  task.override({name: {"input_path": records} for name in ("train_data", "validation_data")})
  task.override(changes)
  return task_factory.get_task(task)


def dataset(task, name="validation_data"):
  return task.build_inputs(getattr(task.task_config, name))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  return write_scenes(tmp_path_factory.mktemp("records") / "a")


@pytest.fixture(scope="module")
def built(records):
  tf_keras.utils.set_random_seed(1)  # ReLU blocks some gradients with other seeds
  task = task_of(records, per_category_metrics=True)
  return task, task.build_model()


def test_config_is_registered_with_the_task():
  params = exp_factory.get_exp_config("retinanet_sasa_coco")
  assert type(params.task) is configs.RetinaNetTask
  assert type(task_factory.get_task(params.task)) is retinanet.RetinaNetTask


@pytest.fixture(scope="module")
def train_step(built):
  """Returns a function of a batch: the loss of one step, and the share of weights it changed."""
  task, model = built
  # Changes every weight with a gradient. Small SGD updates would vanish in rounding.
  optimizer = tf_keras.optimizers.Adam(1e-3, epsilon=1e-12)
  optimizer.build(model.trainable_variables)  # otherwise the step is traced twice
  metrics = task.build_metrics()

  @tf.function
  def step(inputs):
    return task.train_step(inputs, model, optimizer)

  def run(inputs):
    parts = model.checkpoint_items
    before = {name: [w.numpy() for w in part.trainable_weights] for name, part in parts.items()}
    loss = step(inputs)["loss"].numpy()
    after = {name: [w.numpy() for w in part.trainable_weights] for name, part in parts.items()}
    assert all(np.isfinite(w).all() for weights in after.values() for w in weights)
    moved = {
      name: [(a != b).any() for a, b in zip(before[name], after[name], strict=True)]
      for name in before
    }
    return loss, {name: np.mean(changes) for name, changes in moved.items()}

  assert {metric.name for metric in metrics} >= {"total_loss", "cls_loss", "box_loss"}
  return run


def test_training_step_changes_every_part(built, train_step):
  task, _ = built
  (batch,) = dataset(task, "train_data").take(1)
  loss, moved = train_step(batch)
  assert np.isfinite(loss) and loss > 0
  assert moved.keys() == {"backbone", "decoder", "head"}
  assert min(moved.values()) > 0.7  # ReLU may block some gradients


def test_images_without_boxes_can_be_trained(train_step, tmp_path):
  task = task_of(write_scenes(tmp_path / "a", [[], [], []]))
  (batch,) = dataset(task, "train_data").take(1)
  assert not batch[1]["box_weights"].numpy().any()
  loss, moved = train_step(batch)
  assert np.isfinite(loss) and loss > 0  # the class loss
  assert moved["backbone"] > 0.7


def test_single_image_is_repeated_for_training_and_evaluated_once(train_step, tmp_path):
  task = task_of(write_scenes(tmp_path / "a", SCENES[:1]))
  (batch,) = dataset(task, "train_data").take(1)
  assert batch[0].shape[0] == 3
  loss, _ = train_step(batch)
  assert np.isfinite(loss) and loss > 0
  (evaluated,) = dataset(task)
  assert evaluated[1]["groundtruths"]["source_id"].numpy().tolist() == [1]


def test_evaluation_step(built):
  task, model = built
  metrics = task.build_metrics(training=False)
  step = tf.function(lambda inputs: task.validation_step(inputs, model, metrics))
  state = None
  for inputs in dataset(task):
    state = task.aggregate_logs(state, step(inputs))
  result = task.reduce_aggregated_logs(state)
  assert {"AP", "AP50", "APs", "ARmax100", "AP/1", "AP50/3"} <= set(result)
  assert all(-1 <= value <= 1 for value in result.values())
  assert {metric.name for metric in metrics} >= {"total_loss", "cls_loss", "box_loss"}
  assert all(np.isfinite(metric.result()) for metric in metrics)


def perfect_detections(labels, scores):
  """Returns the ground truth, and perfect detections in pixels of the resized image."""
  truth = labels["groundtruths"]
  scale = tf.tile(labels["image_info"][:, 2:3, :], [1, 1, 2])
  found = tf.reshape(truth["num_detections"], [-1])
  exists = tf.sequence_mask(found, tf.shape(truth["classes"])[1])
  return truth, {
    "detection_boxes": truth["boxes"] * scale,
    "detection_scores": tf.where(exists, scores, 0.0),
    "detection_classes": tf.where(exists, tf.cast(truth["classes"], tf.int32), 0),
    "num_detections": found,
    "source_id": truth["source_id"],
    "image_info": labels["image_info"],
  }


def evaluate(task, change=lambda detections: detections):
  task.build_metrics(training=False)
  state = None
  for _, labels in dataset(task):
    truth, detections = perfect_detections(labels, scores=0.9)
    state = task.aggregate_logs(state, {task.coco_metric.name: (truth, change(detections))})
  return task.reduce_aggregated_logs(state)


@pytest.mark.parametrize("annotated", [False, True])
def test_average_precision_of_perfect_detections(records, tmp_path, annotated):
  file = write_annotations(tmp_path / "a.json") if annotated else None
  task = task_of(records, annotation_file=file, per_category_metrics=True)
  result = evaluate(task)
  names = ("ant", "bee", "cat") if annotated else (1, 2, 3)
  for name in ("AP", "AP50", "AP75", "ARmax100", *(f"AP/{n}" for n in names)):
    assert result[name] == pytest.approx(1), name

  def shift(detections):  # by 16 of 64 pixels: one of the three boxes keeps an IoU above 0.5
    return {**detections, "detection_boxes": detections["detection_boxes"] + [0, 16, 0, 16]}

  assert evaluate(task, shift)["AP"] < 0.2


def test_every_image_is_evaluated_once(records):
  batches = [labels["groundtruths"]["source_id"].numpy() for _, labels in dataset(task_of(records))]
  assert np.concatenate(batches).tolist() == [1, 2, 3]  # including the last one


def test_annotations_of_other_images_raise_an_error(records, tmp_path):
  file = write_annotations(tmp_path / "a.json", first_id=3)
  with pytest.raises(UserError, match=r"no images with the ids 1, 2, which .* \(2 of 3 images\)"):
    evaluate(task_of(records, annotation_file=file))


@pytest.mark.parametrize(
  "content",
  [
    *("", "{", "[]", "5", "[" * 100_000, "\ufeff{}", '{"annotations": [5]}', '{"images": 5}'),
    *('{"images": [{}], "annotations": []}', '{"annotations": [{"id": 1}]}'),
  ],
)
def test_invalid_annotation_file_raises_an_error(tmp_path, content):
  (tmp_path / "a.json").write_text(content)
  with pytest.raises(UserError, match=r"task\.annotation_file=.*a\.json cannot be read"):
    COCOEvaluator(annotation_file=str(tmp_path / "a.json"), include_mask=False)
  with pytest.raises(UserError, match="nowhere"):
    COCOEvaluator(annotation_file="nowhere", include_mask=False)


@pytest.mark.parametrize("name", ["train_data", "validation_data"])
def test_labels_of_tfrecords_are_unchanged(records, name):
  task = task_of(records)
  seen = set()
  for _, labels in dataset(task, name).take(2):
    for targets in labels["cls_targets"].values():
      seen |= set(np.unique(targets))
  assert seen == {-1, 1, 2, 3}


@pytest.mark.parametrize("name", ["train_data", "validation_data"])
def test_tfds_labels_are_converted_to_coco_ids(name):
  data = {"tfds_name": "coco/2017", "tfds_split": "train", "input_path": "", "global_batch_size": 4}
  task = task_of(model={"num_classes": 91}, **{name: data})
  # In TFDS person is 0 and toothbrush 79; in COCO's files they are 1 and 90.
  with tfds.testing.mock_data(num_examples=4, as_dataset_fn=people_and_toothbrushes):
    _, labels = next(iter(dataset(task, name)))
  seen = {int(x) for targets in labels["cls_targets"].values() for x in np.unique(targets)}
  assert seen == {-1, 1, 90}
  if name == "validation_data":
    assert labels["groundtruths"]["classes"][:, :3].numpy().tolist() == [[1, 90, -1]] * 4


def people_and_toothbrushes(builder, *_, **__):
  assert builder.info.features["objects"]["label"].num_classes == len(COCO_IDS) == 80
  return tf.data.Dataset.from_tensors(
    {
      "image": tf.zeros([64, 64, 3], tf.uint8),
      "image/filename": "a",
      "image/id": tf.constant(7, tf.int64),
      "objects": {
        "area": tf.constant([1, 1], tf.int64),
        "bbox": [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]],
        "id": tf.constant([1, 2], tf.int64),
        "is_crowd": [False, False],
        "label": tf.constant([0, 79], tf.int64),
      },
    }
  ).repeat(4)


@pytest.mark.parametrize("label", [0, 4])
@pytest.mark.parametrize("name", ["train_data", "validation_data"])
def test_invalid_label_raises_an_error(tmp_path, label, name):
  records = write_scenes(tmp_path / "a", [*SCENES, [([0, 0, 48, 64], label)]])
  task = task_of(records, train_data={"global_batch_size": 4})
  message = f"{retinanet.LABEL_ERROR}: expected 1 to 3"
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    list(dataset(task, name).take(2))


def test_initialize_backbone_from_a_classifier(built, tmp_path):
  _, model = built
  path = save_backbone(tmp_path, model)
  start = {"init_checkpoint": str(tmp_path), "init_checkpoint_modules": "backbone"}
  task = task_of(**start)
  other = task.build_model()
  assert not same(model.backbone, other.backbone)
  head = [w.numpy() for w in other.head.weights]
  task.initialize(other)
  assert same(model.backbone, other.backbone)
  assert all((a == b.numpy()).all() for a, b in zip(head, other.head.weights, strict=True))

  deeper = task_of(**start, model={"backbone": {"sasa_resnet": {"model_id": 38}}})
  message = rf"init_checkpoint={tmp_path} does not fit .* is not in the checkpoint.*Configure the"
  with pytest.raises(UserError, match=message):
    deeper.initialize(deeper.build_model())
  with pytest.raises(UserError, match="holds no checkpoint"):
    task_of(init_checkpoint=path.rpartition("/")[0] + "/..").initialize(model)


def save_backbone(folder, model):
  """Saves a backbone as the trainer of a classifier does."""
  return tf.train.Checkpoint(backbone=model.backbone).save(f"{folder}/ckpt")


def same(left, right):
  pairs = zip(left.weights, right.weights, strict=True)
  return all(np.allclose(a.numpy(), b.numpy()) for a, b in pairs)


def test_waymo_metrics_raise_an_error():
  with pytest.raises(UserError, match="use_wod_metrics must be False"):
    task_of(use_wod_metrics=True).build_metrics()
