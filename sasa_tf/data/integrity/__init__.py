"""Detection and repair of corrupt TFRecord files."""
