"""Converters of image collections to the TFRecords that Model Garden reads."""
