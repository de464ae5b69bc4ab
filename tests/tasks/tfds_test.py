"""TFDS datasets, written here as TFDS prepares them and read without network access."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from official.core import exp_factory, input_reader, task_factory
from official.modeling.hyperparams import params_dict
from official.vision.dataloaders import tfds_factory
from official.vision.tasks import image_classification as stock
from PIL import Image

from sasa_tf.tasks import (  # noqa: F401
  image_classification,
  retinanet,
  tfds_decoders,
)


def encoded(kind, size, seed):
  pixels = np.random.default_rng(seed).integers(0, 255, [4, 4, 3], np.uint8)
  stream = io.BytesIO()
  Image.fromarray(pixels).resize(size).save(stream, kind, quality=80)
  return stream.getvalue()


def prepare(name, directory, examples):
  """Writes a dataset with its TFDS features."""
  builder = tfds.builder(name, data_dir=str(directory))
  features = builder.info.features
  template = tfds.core.ShardedFileTemplate(
    data_dir=builder.data_dir, dataset_name=builder.name, split="train", filetype_suffix="tfrecord"
  )
  builder.data_path.mkdir(parents=True)
  file = template.sharded_filepath(shard_index=0, num_shards=1)
  with tf.io.TFRecordWriter(str(file)) as writer:
    for example in examples:
      writer.write(features.serialize_example(features.encode_example(example)))
  split = tfds.core.SplitInfo(
    name="train", shard_lengths=[len(examples)], num_bytes=1, filename_template=template
  )
  builder.info.set_splits(tfds.core.SplitDict([split]))
  builder.info.write_to_directory(builder.data_dir)


def configured(experiment, override=""):
  params = exp_factory.get_exp_config(experiment)
  return params_dict.override_params_dict(params, override, is_strict=True)


def decoded_examples(name, directory, task, data):
  """Returns the decoded examples."""
  data = tfds_decoders.pass_through(data)
  dataset = input_reader._read_tfds(
    name, str(directory), "train", data.tfds_skip_decoding_feature, False
  )
  registry = "classification" if "ImageClassification" in type(task).__name__ else "detection"
  decoder = getattr(tfds_factory, f"get_{registry}_decoder")(name)
  return list(dataset.map(decoder.decode).as_numpy_iterator())


@pytest.mark.parametrize(("name", "kind"), [("imagenet2012", "JPEG"), ("cifar10", "PNG")])
def test_classification_keeps_encoded_images(name, kind, tmp_path):
  images = [encoded(kind, (32, 32), seed) for seed in range(3)]
  identity = "file_name" if name == "imagenet2012" else "id"
  prepare(
    name,
    tmp_path,
    [{"image": io.BytesIO(image), "label": n, identity: str(n)} for n, image in enumerate(images)],
  )
  override = (
    f"task.train_data.tfds_name={name},task.train_data.tfds_data_dir={tmp_path},"
    "task.train_data.tfds_split=train,task.train_data.global_batch_size=3,"
    "task.train_data.is_training=false,task.train_data.aug_crop=false"
  )
  params = configured("sasa_resnet_cifar10", override)
  task = task_factory.get_task(params.task)
  found = decoded_examples(name, tmp_path, task, params.task.train_data)
  assert sorted(each["image/encoded"] for each in found) == sorted(images)
  batch, labels = next(iter(task.build_inputs(params.task.train_data)))
  assert batch.shape == [3, 32, 32, 3] and sorted(labels.numpy()) == [0, 1, 2]
  # The images of the stock task were encoded as JPEG a second time.
  stock_batch, _ = next(
    iter(stock.ImageClassificationTask.build_inputs(task, params.task.train_data))
  )
  assert float(tf.reduce_max(tf.abs(tf.sort(batch, 0) - tf.sort(stock_batch, 0)))) > 0


def test_png_is_decoded_by_tfds_if_only_jpeg_is_supported():
  params = configured("sasa_resnet_cifar10")
  data = params.task.train_data
  assert tfds_decoders.pass_through(data).tfds_skip_decoding_feature == "image"
  jpeg_only = data.replace(decode_jpeg_only=True, aug_crop=True)
  assert not tfds_decoders.pass_through(jpeg_only).tfds_skip_decoding_feature
  own = data.replace(tfds_skip_decoding_feature="id")
  assert tfds_decoders.pass_through(own).tfds_skip_decoding_feature == "id"


def test_coco_ids_and_images(tmp_path):
  image = encoded("JPEG", (64, 48), 0)
  labels = [0, 11, 79]  # person, stop sign, toothbrush: 1, 13 and 90 in COCO
  boxes = [tfds.features.BBox(0.1, 0.2, 0.5, 0.6)] * 3
  objects = [
    {"area": 100, "bbox": box, "id": n, "is_crowd": False, "label": label}
    for n, (box, label) in enumerate(zip(boxes, labels, strict=True))
  ]
  prepare(
    "coco/2017",
    tmp_path,
    [
      {
        "image": io.BytesIO(image),
        "image/filename": "7.jpg",
        "image/id": 7,
        "objects": objects,
      }
    ],
  )
  override = (
    f"task.train_data.tfds_data_dir={tmp_path},task.train_data.tfds_split=train,"
    f"task.validation_data.tfds_data_dir={tmp_path},task.validation_data.tfds_split=train,"
    "task.validation_data.global_batch_size=1,task.model.input_size=[128,128,3]"
  )
  params = configured("retinanet_sasa_coco", override)
  task = task_factory.get_task(params.task)
  data = params.task.validation_data
  assert data.tfds_name == "coco/2017"
  (found,) = decoded_examples("coco/2017", tmp_path, task, data)
  np.testing.assert_array_equal(found["image"], tf.io.decode_jpeg(image).numpy())
  assert (found["height"], found["width"], found["source_id"]) == (48, 64, b"7")
  _, truth = next(iter(task.build_inputs(data)))
  classes = truth["groundtruths"]["classes"].numpy()[0]
  assert list(classes[:3]) == [1, 13, 90]
