"""What may be cut in a model, and why not: capture, labels, rules, sites, probe."""
