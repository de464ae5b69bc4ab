"""The command line as a whole: commands, short help and shell completion. Imports no TensorFlow."""
