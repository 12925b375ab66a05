"""Training: plan, session, loop, schedules, log and checkpoints."""
