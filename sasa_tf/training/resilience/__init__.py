"""Recovery from crashes, preemption, full disks and corrupt records."""
