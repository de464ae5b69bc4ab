"""What TensorFlow Serving reads besides the model: warm-up requests."""
