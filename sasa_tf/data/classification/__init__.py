"""Converters of images with one class label each to TFRecords."""
