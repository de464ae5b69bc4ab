"""A run around Model Garden's trainer: configuration, checks, strategy, progress."""
