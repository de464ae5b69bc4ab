"""TFRecords of colored rectangles in the format of Model Garden's TfExampleDecoder."""

import json

import numpy as np
import tensorflow as tf

HEIGHT, WIDTH = 48, 64
# ([ymin, xmin, ymax, xmax] in pixels, class) of each box of each image; the second has none.
SCENES = (
  [([4, 6, 36, 40], 1), ([8, 40, 44, 62], 2)],
  [],
  [([0, 0, 48, 32], 3)],
)


def _feature(values):
  if isinstance(values[0], bytes):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
  if isinstance(values[0], int):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
  return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def example(image_id, boxes):
  """Returns a `tf.train.Example` with a filled rectangle for each ([y0, x0, y1, x1], class)."""
  image = np.full([HEIGHT, WIDTH, 3], 100, np.uint8)
  for (y0, x0, y1, x1), label in boxes:
    image[y0:y1, x0:x1] = 60 * label, 255 - 60 * label, 20 * label
  features = {
    "image/encoded": [tf.io.encode_png(image).numpy()],
    "image/height": [HEIGHT],
    "image/width": [WIDTH],
    "image/source_id": [str(image_id).encode()],
  }
  if boxes:
    scale = np.array([HEIGHT, WIDTH, HEIGHT, WIDTH])
    corners = np.array([box for box, _ in boxes]) / scale
    for name, column in zip(("ymin", "xmin", "ymax", "xmax"), corners.T, strict=True):
      features[f"image/object/bbox/{name}"] = column.tolist()
    features["image/object/class/label"] = [label for _, label in boxes]
  return tf.train.Example(
    features=tf.train.Features(feature={k: _feature(v) for k, v in features.items()})
  )


def write_scenes(path, scenes=SCENES, ids=None):
  """Writes a TFRecord file; image ids start at 1. Returns the path as a string."""
  ids = ids or range(1, len(scenes) + 1)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for image_id, boxes in zip(ids, scenes, strict=True):
      writer.write(example(image_id, boxes).SerializeToString())
  return str(path)


def write_annotations(path, scenes=SCENES, first_id=1):
  """Writes the boxes as a COCO annotation file. Returns the path as a string."""
  annotations = [
    {
      "image_id": image_id,
      "category_id": label,
      "bbox": [x0, y0, x1 - x0, y1 - y0],
      "area": (x1 - x0) * (y1 - y0),
      "iscrowd": 0,
    }
    for image_id, boxes in enumerate(scenes, start=first_id)
    for (y0, x0, y1, x1), label in boxes
  ]
  content = {
    "images": [{"id": first_id + i, "height": HEIGHT, "width": WIDTH} for i in range(len(scenes))],
    "categories": [{"id": i, "name": name} for i, name in enumerate(("ant", "bee", "cat"), 1)],
    "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
  }
  path.write_text(json.dumps(content))
  return str(path)
