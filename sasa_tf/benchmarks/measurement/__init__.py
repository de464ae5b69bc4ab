"""Time and memory of one step."""
