"""Measures the operation, the layer and the models beside the convolution that they replace."""
