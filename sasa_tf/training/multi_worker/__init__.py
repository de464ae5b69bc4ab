"""Training with several worker processes on one or more hosts."""
