"""Export modules: preprocessing, model and postprocessing as one graph."""
