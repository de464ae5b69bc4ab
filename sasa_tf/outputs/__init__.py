"""Outputs of the programs: where they may be written, and how an earlier one is replaced."""
