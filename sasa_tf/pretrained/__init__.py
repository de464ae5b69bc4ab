"""Weights of other convolutional ResNets for `SASAResNet`."""
