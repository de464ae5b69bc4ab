"""Compilation of layers and models for a TPU, without a TPU."""
