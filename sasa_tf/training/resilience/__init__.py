"""Training that survives crashes, preemption and corrupt files."""
