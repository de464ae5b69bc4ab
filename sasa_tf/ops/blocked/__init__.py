"""Exact local attention as matrix products over haloed blocks of queries, in stock TensorFlow."""
