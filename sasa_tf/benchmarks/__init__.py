"""Benchmarks of the operation, the layer, models, the input pipeline and multi-GPU training."""
