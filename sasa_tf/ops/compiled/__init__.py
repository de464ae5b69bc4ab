"""Attention by the compiled kernels, called as XLA custom calls."""
