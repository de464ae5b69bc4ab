"""Converters of images with bounding boxes to TFRecords."""
