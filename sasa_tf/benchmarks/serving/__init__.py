"""Exported models in their runtimes: latency, speed, loading, memory and differences."""
