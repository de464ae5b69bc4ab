"""Runtimes of the export formats, each as a script that needs NumPy and the runtime only."""
