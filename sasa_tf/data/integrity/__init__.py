"""Corrupt TFRecords: detection and repair."""
