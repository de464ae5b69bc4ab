"""Exact local attention as matrix products of haloed blocks, in TensorFlow operations."""
