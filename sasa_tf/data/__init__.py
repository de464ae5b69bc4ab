"""Converters of image collections into the TFRecords that Model Garden reads."""
