"""What a conversion did to images, counted and reported at its end."""

from __future__ import annotations

from collections.abc import Mapping

# The names are keys of dataset.json.
TURNED = "exif_turned"
DISPLAYED_BY_SIZE = "exif_boxes_displayed_by_size"
STORED_BY_SIZE = "exif_boxes_stored_by_size"
DISPLAYED_BY_FLAG = "exif_boxes_displayed_by_flag"
STORED_BY_FLAG = "exif_boxes_stored_by_flag"
DECODER_WARNING = "decoder_warning"

_LINES = {
  TURNED: "stored upright as their EXIF orientation says: {}",
  DISPLAYED_BY_SIZE: "of these, boxes of the displayed image, by the annotated size: {}",
  STORED_BY_SIZE: "of these, boxes of the stored pixels, by the annotated size, turned too: {}",
  DISPLAYED_BY_FLAG: "of these, undecided, boxes of the displayed image by --exif_boxes: {}",
  STORED_BY_FLAG: "of these, undecided, boxes of the stored pixels by --exif_boxes, turned too: {}",
  DECODER_WARNING: "JPEG images that decode although their data is corrupt (--verify=full lists "
  "and skips them): {}",
}


def report_lines(counts: Mapping[str, int]) -> list[str]:
  """Returns what the report says about the images of a split.

  Args:
    counts: {note: number of images}.
  """
  lines = [text.format(f"{counts[note]:,}") for note, text in _LINES.items() if counts.get(note)]
  # Annotation tools rarely differ within a data set.
  sizes = {"displayed": DISPLAYED_BY_SIZE, "stored": STORED_BY_SIZE}
  for flag, other in (("displayed", "stored"), ("stored", "displayed")):
    by_flag = {"displayed": DISPLAYED_BY_FLAG, "stored": STORED_BY_FLAG}[flag]
    if counts.get(by_flag) and counts.get(sizes[other], 0) > counts.get(sizes[flag], 0):
      pixels = {"displayed": "displayed image", "stored": "stored pixels"}[other]
      lines.append(
        f"Most annotated sizes are those of the {pixels}: convert again with --exif_boxes={other}"
      )
  return lines
