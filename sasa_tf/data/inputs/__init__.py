"""Reads what other systems and programs wrote: text, XML, JSON, file names and values."""
