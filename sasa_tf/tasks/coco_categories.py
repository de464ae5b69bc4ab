"""The category ids of COCO."""

# The ids of COCO's 80 categories, in order: 1 to 90 without those that were never annotated. TFDS
# numbers the categories from 0 to 79 in this order.
COCO_IDS = tuple(id_ for id_ in range(1, 91) if id_ not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
