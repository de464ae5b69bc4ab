"""Images with bounding boxes as TFRecords."""
