"""Relations between fields of the data and of the losses."""

from __future__ import annotations

from collections.abc import Iterator

from official.vision.configs import common
from official.vision.dataloaders import tfds_classification_decoders, tfds_detection_decoders

from sasa_tf.errors import did_you_mean
from sasa_tf.training.config_validation.problems import Problem, show
from sasa_tf.training.config_validation.schema import sections
from sasa_tf.training.config_validation.use import Use

# Pairs (smaller, larger) of fields of a section.
_ORDERED: dict[type, tuple[str, str]] = {
  common.RandomErasing: ("min_area", "max_area"),
  common.RandJpegQuality: ("min_quality", "max_quality"),
}
_ORDERED_NAMES = (
  ("unmatched_threshold", "match_threshold"),
  ("aug_scale_min", "aug_scale_max"),
)
# Augmentations of single images, and the values that turn them off.
_NOT_IN_BATCHES = {
  "aug_crop": "false",
  "aug_type": "null",
  "three_augment": "false",
  "repeated_augment": "null",
}
_RANGES = ("crop_area_range", "aspect_ratio_range", "area_range")


def _tfds(use: Use) -> Iterator[Problem]:
  known = {}
  if use.is_classification:
    known = tfds_classification_decoders.TFDS_ID_TO_DECODER_MAP
  elif use.is_detection:
    known = tfds_detection_decoders.TFDS_ID_TO_DECODER_MAP
  for key, data in use.data.items():
    name = data.tfds_name
    if not isinstance(name, str) or not name or data.input_path:
      continue
    if known and name not in known:
      yield Problem(
        f"{key}.tfds_name={show(name)}: expected a dataset that Model Garden can decode. "
        f"{did_you_mean(name, known)}",
        (f"{key}.tfds_name",),
      )
    if not data.tfds_split:
      yield Problem(
        f"{key}.tfds_split={show(data.tfds_split)}: expected the name of a split, such as train, "
        f"because {key}.tfds_name={name}.",
        (f"{key}.tfds_split", f"{key}.tfds_name"),
      )


def _is_training(use: Use) -> Iterator[Problem]:
  task = use.params.task
  if use.trains and task.train_data.is_training is False:
    yield Problem(
      "task.train_data.is_training=false: expected true, because the training repeats and shuffles "
      "its data.",
      ("task.train_data.is_training",),
    )
  if use.evaluates and task.validation_data.is_training:
    yield Problem(
      "task.validation_data.is_training=true: expected false, because training data is shuffled, "
      "augmented and never ends: the metrics would be those of random crops.",
      ("task.validation_data.is_training",),
    )


def _data_service(use: Use) -> Iterator[Problem]:
  for key, data in use.data.items():
    if data.enable_tf_data_service and not data.tf_data_service_address:
      yield Problem(
        f"{key}.tf_data_service_address={show(data.tf_data_service_address)}: expected an address, "
        f"such as grpc://host:5050, because {key}.enable_tf_data_service=true.",
        (f"{key}.tf_data_service_address", f"{key}.enable_tf_data_service"),
      )
  if use.evaluates and use.params.task.validation_data.enable_tf_data_service:
    yield Problem(
      "task.validation_data.enable_tf_data_service=true: expected false, because each worker of "
      "the service yields all images, which would be counted more than once.",
      ("task.validation_data.enable_tf_data_service",),
    )


def _weights(use: Use) -> Iterator[Problem]:
  for key, data in use.data.items():
    weights = data.weights.as_dict() if data.weights else {}
    if weights and not any(weight > 0 for weight in weights.values()):
      yield Problem(
        f"{key}.weights={show(weights)}: expected one weight greater than 0 at least; otherwise no "
        "image is read.",
        (f"{key}.weights",),
      )


def _field_keys(use: Use) -> Iterator[Problem]:
  for key, data in use.data.items():
    image, label = getattr(data, "image_field_key", None), getattr(data, "label_field_key", None)
    if image and image == label:
      yield Problem(
        f"{key}.image_field_key={show(image)}, {key}.label_field_key={show(label)}: expected the "
        "names of two features of the records.",
        (f"{key}.image_field_key", f"{key}.label_field_key"),
      )


def _augmentation(use: Use) -> Iterator[Problem]:
  for key, data in use.data.items():
    chosen = getattr(data, "aug_type", None)
    if use.is_classification and chosen is not None and chosen.type == "ssd_random_crop":
      yield Problem(
        f"{key}.aug_type.type=ssd_random_crop: expected one of autoaug, randaug; cropping around "
        "boxes is for detection.",
        (f"{key}.aug_type.type",),
      )


def _boxes_policy(use: Use) -> Iterator[Problem]:
  for key, data in use.data.items():
    chosen = getattr(data, "aug_type", None)
    if not use.is_classification or chosen is None or chosen.type != "autoaug":
      continue
    if chosen.autoaug.augmentation_name == "detection_v0":
      path = f"{key}.aug_type.autoaug.augmentation_name"
      yield Problem(
        f"{path}=detection_v0: expected a policy for classification, such as v0; this one moves "
        "boxes.",
        (path,),
      )


def _pad_crop(use: Use) -> Iterator[Problem]:
  padding = getattr(use.params.task.train_data, "pad_crop", 0)
  size = use.model.input_size if padding else ()
  if use.trains and len(size) == 3 and padding >= min(size[:2]):
    yield Problem(
      f"task.train_data.pad_crop={padding}: expected less than the height and width of "
      f"task.model.input_size={show(size)}, because the border reflects the image.",
      ("task.train_data.pad_crop", "task.model.input_size"),
    )


def _batch_augmentation(use: Use) -> Iterator[Problem]:
  key, data = "task.train_data", use.params.task.train_data
  if not use.trains or not getattr(data, "batch_augmentation", False):
    return
  for name, expected in _NOT_IN_BATCHES.items():
    value = getattr(data, name)
    if value:
      yield Problem(
        f"{key}.{name}={show(value)}: expected {expected} with {key}.batch_augmentation=true, "
        "which augments whole batches of equally large images. Change it, or set "
        "batch_augmentation to false.",
        (f"{key}.{name}", f"{key}.batch_augmentation"),
      )


def _order(use: Use) -> Iterator[Problem]:
  for path, config, _ in sections(use.params):
    own = [_ORDERED[base] for base in type(config).__mro__ if base in _ORDERED]
    pairs = [*_ORDERED_NAMES, *own]
    for low, high in pairs:
      smaller, larger = getattr(config, low, None), getattr(config, high, None)
      if smaller is not None and larger is not None and smaller > larger:
        yield Problem(
          f"{path}.{low}={show(smaller)}: expected at most {path}.{high}={show(larger)}.",
          (f"{path}.{low}", f"{path}.{high}"),
        )
    for name in _RANGES:
      values = getattr(config, name, None)
      if values is not None and len(values) == 2 and values[0] > values[1]:
        yield Problem(
          f"{path}.{name}={show(values)}: expected the smaller value first.", (f"{path}.{name}",)
        )


def _losses(use: Use) -> Iterator[Problem]:
  if not use.is_classification or not use.trains:
    return
  task = use.params.task
  losses, mixup = task.losses, task.train_data.mixup_and_cutmix
  paths = ("task.losses.one_hot", "task.losses.soft_labels", "task.train_data.mixup_and_cutmix")
  if mixup and (losses.one_hot or not losses.soft_labels):
    yield Problem(
      f"task.losses.one_hot={show(losses.one_hot)}, task.losses.soft_labels="
      f"{show(losses.soft_labels)}: expected one_hot=false and soft_labels=true with "
      "task.train_data.mixup_and_cutmix, which mixes the labels of two images.",
      paths,
    )
  if not mixup and losses.use_binary_cross_entropy:
    yield Problem(
      "task.losses.use_binary_cross_entropy=true: expected task.train_data.mixup_and_cutmix, "
      "because Model Garden computes this loss of mixed labels only. Set it, or "
      "use_binary_cross_entropy to false.",
      ("task.losses.use_binary_cross_entropy", *paths[2:]),
    )
  if not mixup and losses.soft_labels and not losses.one_hot:
    yield Problem(
      "task.losses.soft_labels=true: expected task.train_data.mixup_and_cutmix, which creates soft "
      "labels, or task.losses.one_hot=true.",
      paths,
    )


def _annotations(use: Use) -> Iterator[Problem]:
  if not use.is_detection or not use.evaluates:
    return
  task = use.params.task
  if task.annotation_file and task.validation_data.tfds_name:
    yield Problem(
      f"task.annotation_file={show(task.annotation_file)}: expected null with "
      "task.validation_data.tfds_name, whose ground truth is in the dataset.",
      ("task.annotation_file", "task.validation_data.tfds_name"),
    )


RELATIONS = (
  _tfds,
  _is_training,
  _data_service,
  _weights,
  _field_keys,
  _augmentation,
  _boxes_policy,
  _pad_crop,
  _batch_augmentation,
  _order,
  _losses,
  _annotations,
)
