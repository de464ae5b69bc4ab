"""The attention explorer: one HTML page that shows what a model attends to in some images."""
