"""Training: objective, schedules, the loop, shrinking, checkpoints."""
