"""Attention within blocks of pixels, as in the paper's stem (Sec. 3.2, App. A.1)."""
