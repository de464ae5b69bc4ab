"""The computations that the benchmark compares."""
