"""The compiled CPU kernels beside exported models, for processes without this library."""
