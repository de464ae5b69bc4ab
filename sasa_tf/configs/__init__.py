"""Model Garden configurations: data only, never the models they describe."""
