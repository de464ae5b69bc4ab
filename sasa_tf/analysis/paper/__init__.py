"""The paper's tables beside the library's own counts."""
