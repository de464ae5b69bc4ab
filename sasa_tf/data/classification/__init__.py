"""Images with one class each as TFRecords."""
