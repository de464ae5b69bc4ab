"""Measurement of the time and the memory of one step."""
