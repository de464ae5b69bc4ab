"""TensorBoard summaries of attention during a training."""
