"""Clients of exported models, which run them on image files."""
