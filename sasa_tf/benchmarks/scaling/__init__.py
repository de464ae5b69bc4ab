"""Training throughput by the number of GPUs of a host."""
