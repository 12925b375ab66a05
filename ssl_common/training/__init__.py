"""The loop, its schedule and its checkpoints."""
