"""Training throughput over the number of GPUs of a host."""
