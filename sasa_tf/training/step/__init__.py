"""The training step of one replica and its parts."""
