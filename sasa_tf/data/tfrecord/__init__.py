"""Generic writer of sharded TFRecord data sets: planning, parallel writing, atomic commit."""
