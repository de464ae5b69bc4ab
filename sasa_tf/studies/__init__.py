"""Studies: rows of experiments, each trained with several seeds, and their reports."""
