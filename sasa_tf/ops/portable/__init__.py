"""GPU kernels as text, for exported models that run without this library."""
