"""Local attention by the compiled kernels, called through XLA."""
