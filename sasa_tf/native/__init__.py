"""The compiled kernels of local attention: sources, their build, and the loaded library."""
