"""Small VOC and COCO data sets for the tests."""

import glob
import json

import tensorflow as tf

from . import image_files

# Size of the images.
HEIGHT, WIDTH = 24, 40


def voc_object(name="cat", corners=(3, 5, 20, 15), difficult=0):
  tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
  edges = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
  return (
    f"<object><name>{name}</name><difficult>{difficult}</difficult>"
    f"<bndbox>{edges}</bndbox><part><name>head</name><bndbox/></part></object>"
  )


def voc_xml(*objects, height=HEIGHT, width=WIDTH):
  size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
  return f"<annotation>{size}{''.join(objects)}</annotation>"


def write_image(path, height=HEIGHT, width=WIDTH, seed=0):
  encode = image_files.png if path.suffix == ".png" else image_files.jpeg
  path.write_bytes(encode(height, width, seed=seed))


def write_voc(root, xml_by_name, lists=None):
  """Writes JPEGImages/<name>.jpg, Annotations/<name>.xml and ImageSets/Main/<list>.txt."""
  for folder in ("JPEGImages", "Annotations"):
    (root / folder).mkdir(parents=True)
  for seed, (name, xml) in enumerate(xml_by_name.items()):
    write_image(root / "JPEGImages" / f"{name}.jpg", seed=seed)
    (root / "Annotations" / f"{name}.xml").write_text(xml)
  for name, members in (lists or {}).items():
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (root / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{m}\n" for m in members))
  return root


def coco_content(image_ids=(7, 9, 139), boxes=(), categories=((1, "cat"), (3, "dog"))):
  """Returns an instances file's content; boxes are (image id, category id, bbox, more keys)."""
  return {
    "images": [
      {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in image_ids
    ],
    "categories": [
      {"id": i, "name": name, "supercategory": "animal", "color": "red"} for i, name in categories
    ],
    "annotations": [
      {"id": 100 + n, "image_id": image, "category_id": category, "bbox": bbox, **more}
      for n, (image, category, bbox, *rest) in enumerate(boxes)
      for more in [rest[0] if rest else {"area": 50.0, "iscrowd": 0}]
    ],
  }


def write_coco(root, content):
  """Writes instances.json and images/<file name>."""
  (root / "images").mkdir(parents=True)
  for image in content["images"]:
    write_image(root / "images" / image["file_name"], seed=image["id"])
  (root / "instances.json").write_text(json.dumps(content))
  return root


def examples(output, split="train"):
  """Returns {file name: {key: list of values}} of a split's records."""
  found = {}
  for record in tf.data.TFRecordDataset(
    sorted(glob.glob(f"{glob.escape(str(output))}/{split}-*.tfrecord"))
  ):
    feature = tf.train.Example.FromString(record.numpy()).features.feature
    values = {
      key.removeprefix("image/"): list(
        value.bytes_list.value or value.int64_list.value or value.float_list.value
      )
      for key, value in feature.items()
    }
    found[values["filename"][0].decode()] = values
  return found


def annotations(output, split="train"):
  """Returns a split's annotation file."""
  return json.loads((output / f"{split}.json").read_text())


def problems(output, split="train"):
  """Returns the lines of a split's list of problems."""
  path = output / f"problems-{split}.txt"
  return path.read_text().splitlines() if path.exists() else []
