"""What `sasa doctor` reports: packages, the machine, compiled kernels and implementations."""
