"""The computations that the benchmarks measure."""
