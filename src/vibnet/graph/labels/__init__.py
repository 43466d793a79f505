"""The unit at every position of every tensor of a forward."""
