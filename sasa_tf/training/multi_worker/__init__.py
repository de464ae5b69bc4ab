"""Training across several processes or hosts."""
