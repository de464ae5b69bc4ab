"""Data sets that hold the odd files of all systems and tools at once.

Every image is gray with one bright object, in the upper left as the image is displayed.
"""

import codecs
import json
import struct
import zlib

import numpy as np
from PIL import Image

from . import exif_images, image_files

DIRECTORY = "odd [set=1], v1"
JUNK = ("__MACOSX", "@eaDir", "lost+found", ".ipynb_checkpoints", "$RECYCLE.BIN")
CLASSES = ("狗", "كلب", "แมว", "Cat", "cat")
HEIGHT, WIDTH = 60, 90  # of displayed images
BOX = (9, 6, 42, 30)  # xmin, ymin, xmax, ymax as displayed
_COLORS = ((255, 80, 80), (80, 255, 80), (80, 80, 255), (255, 255, 80), (255, 80, 255))


def displayed(label, height=HEIGHT, width=WIDTH):
  """Returns upright pixels with the object of a class."""
  pixels = np.random.default_rng(label).integers(90, 120, (height, width, 3)).astype(np.uint8)
  xmin, ymin, xmax, ymax = BOX
  pixels[ymin:ymax, xmin:xmax] = _COLORS[label]
  return pixels


def stored(pixels, orientation):
  """Returns the pixels that a viewer shows as `pixels` because of the orientation."""
  methods = Image.Transpose
  undo = {
    1: None,
    2: methods.FLIP_LEFT_RIGHT,
    3: methods.ROTATE_180,
    4: methods.FLIP_TOP_BOTTOM,
    5: methods.TRANSPOSE,
    6: methods.ROTATE_90,
    7: methods.TRANSVERSE,
    8: methods.ROTATE_270,
  }[orientation]
  image = Image.fromarray(pixels)
  return np.asarray(image if undo is None else image.transpose(undo))


def stored_box(orientation):
  """Returns BOX in the stored pixels of an image with the orientation."""
  mask = np.zeros([HEIGHT, WIDTH, 3], np.uint8)
  xmin, ymin, xmax, ymax = BOX
  mask[ymin:ymax, xmin:xmax] = 255
  rows, columns = (np.flatnonzero(stored(mask, orientation).any(axis)) for axis in ((1, 2), (0, 2)))
  return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def label_of(pixels):
  """Returns the class of the object in upright pixels."""
  xmin, ymin, xmax, ymax = BOX
  color = pixels[ymin + 4 : ymax - 4, xmin + 4 : xmax - 4].mean((0, 1))
  return int(np.abs(np.subtract(_COLORS, color)).sum(-1).argmin())


def image(label, orientation=1, image_format="JPEG"):
  """Returns an image file that is displayed upright."""
  return exif_images.encode(stored(displayed(label), orientation), orientation, image_format)


def faulty_images():
  """Returns {file name: content} of images that must not be converted with --verify=full."""
  jpeg = image(0)
  middle = len(jpeg) - 700
  bomb = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
  return {
    "zeros.jpg": jpeg[:middle] + bytes(64) + jpeg[middle + 64 :],
    "closed.jpg": jpeg[:middle] + b"\xff\xd9",
    "cut.jpg": jpeg[:middle],
    "empty.jpg": b"",
    "bomb.png": b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", bomb) + _chunk(b"IDAT", bytes(9)),
    "really.gif.jpg": image_files.ANIMATED_GIF,
  }


def _chunk(name, content):
  return (
    struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
  )


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_junk(root):
  """Writes system folders with thumbnails, and hidden files."""
  for name in JUNK:
    write(root / name / "thumbnail.jpg", image(0))
  write(root / "Thumbs.db", b"\xd0\xcf")
  write(root / "._1.jpg", b"\0\5\26\7")


def write_image_folder(root):
  """Writes 8 valid images per class, of every orientation, and faulty ones in the first class."""
  write_junk(root)
  for label, name in enumerate(CLASSES):
    for orientation in range(1, 9):
      is_jpeg = (orientation + label) % 2
      content = image(label, orientation, "JPEG" if is_jpeg else "PNG")
      write(root / name / f"{orientation}{'.Jpg' if is_jpeg else '.PNG'}", content)
    write_junk(root / name)
  for name, content in faulty_images().items():
    write(root / CLASSES[0] / name, content)
  write(root / CLASSES[0] / "a\nb.jpg", image(0))
  return root


def _xml(label, box=BOX, size=(HEIGHT, WIDTH), declared="", end="\n"):
  edges = "".join(
    f"<{tag}>{value}</{tag}>{end}"
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
  )
  declaration = f'<?xml version="1.0" encoding="{declared}"?>{end}' if declared else ""
  return (
    f"{declaration}<annotation>{end}<size><width>{size[1]}</width><height>{size[0]}</height>"
    f"<depth>3</depth></size>{end}<object><name>{CLASSES[label]}</name>{end}"
    f"<bndbox>{edges}</bndbox></object></annotation>{end}"
  )


def _voc_box(xmin, ymin, xmax, ymax):
  return xmin + 1, ymin + 1, xmax, ymax  # pixels counted from 1, the last one included


def write_voc(root):
  """Writes a Pascal VOC data set; the lists train and val name all images but the last."""
  write_junk(root / "JPEGImages")
  write_junk(root / "Annotations")
  write(root / "Annotations/._1.xml", b"\0\5\26\7")
  xml = {}
  for orientation in range(1, 9):
    label = orientation % len(CLASSES)
    xml[f"displayed{orientation}"] = _xml(label, _voc_box(*BOX)).encode()
    write(root / f"JPEGImages/displayed{orientation}.JPG", image(label, orientation))
    if orientation >= 5:  # the size decides
      box = _voc_box(*stored_box(orientation))
      xml[f"stored{orientation}"] = _xml(label, box, (WIDTH, HEIGHT)).encode()
      write(root / f"JPEGImages/stored{orientation}.jpeg", image(label, orientation))
  text = _xml(0, _voc_box(*BOX), end="\r\n")
  xml |= {
    "utf8": codecs.BOM_UTF8 + text.encode(),
    "utf16": text.encode("utf-16"),
    "gbk": _xml(0, _voc_box(*BOX), declared="gb2312").encode("gbk"),
    "undeclared": text.encode("gbk"),
    "infinite": _xml(0, _voc_box(*BOX), ("inf", "1e999")).encode(),
    "digits": _xml(0, (1, 1, "9" * 400, 20)).encode(),
    "entity": b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + text.encode(),
    **{name.removesuffix(".jpg").removesuffix(".png"): text.encode() for name in faulty_images()},
    "missing": text.encode(),
    "unlisted": text.encode(),
  }
  faulty = {f"JPEGImages/{name}": content for name, content in faulty_images().items()}
  for name, content in faulty.items():
    write(root / name, content)
  written = {path.stem for path in (root / "JPEGImages").iterdir()}
  for name, content in xml.items():
    write(root / f"Annotations/{name}.{'XML' if name[-1] in '123f' else 'xml'}", content)
    if name not in written | {"missing"}:
      write(root / f"JPEGImages/{name}.Jpg", image(0))
  names = [name for name in xml if name != "unlisted"]
  lists = root / "ImageSets/Main"
  write(lists / "train.txt", "".join(f"{n}  \r\n" for n in names[::2]).encode("utf-16"))
  paths = "".join(f"JPEGImages/{n}.jpg\r\n" for n in names[1::2])
  write(lists / "val.txt", codecs.BOM_UTF8 + paths.encode())
  return root


def write_coco(root):
  """Writes a COCO data set: instances.json and images."""
  xmin, ymin, xmax, ymax = BOX
  bbox = [xmin, ymin, xmax - xmin, ymax - ymin]
  images, annotations = [], []

  def add(name, content=None, box=bbox, label=0, **more):
    number = len(images) + 1
    images.append({"id": number, "file_name": name, **more})
    annotations.append(
      {"id": number, "image_id": images[-1]["id"], "category_id": label + 1, "bbox": box}
      | {"iscrowd": "0", "area": bbox[2] * bbox[3]}
    )
    if content is not None:
      write(root / "images" / name, content)

  for orientation in range(1, 9):
    label = orientation % len(CLASSES)
    content = image(label, orientation, "JPEG" if orientation % 2 else "PNG")
    add(f"displayed{orientation}.jpg", content, label=label, height=HEIGHT, width=WIDTH)
    if orientation >= 5:
      x, y, x2, y2 = stored_box(orientation)
      size = {"height": WIDTH, "width": HEIGHT}
      add(f"stored{orientation}.jpg", content, [x, y, x2 - x, y2 - y], label=label, **size)
  for name, content in faulty_images().items():
    add(name, content)
  add("digits.jpg", image(0), [1, 1, 10**400, 4])
  add("infinite.jpg", image(0), height=float("inf"), width=10**400)
  add("large.jpg", image(0), id=2**63)
  for name in ("one.jpg", "two.jpg"):
    add(name, image(0), id=900)
  for name in ("../outside.jpg", "a\0b.jpg", "\ud800.jpg", "/etc/passwd", "missing.jpg"):
    add(name)
  write(root / "outside.jpg", image(0))
  write_junk(root / "images")
  categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
  content = {"images": images, "annotations": annotations, "categories": categories}
  text = json.dumps(content, indent=1).replace("\n", "\r\n")
  write(root / "instances.json", codecs.BOM_UTF8 + text.encode())
  return root
