"""Gates in, units out: attach, plan, prune, save and load."""
