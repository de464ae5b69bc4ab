"""Export formats: one module per format, and the registry."""
