"""Sharded TFRecord files: planned, written in parallel, atomically."""
