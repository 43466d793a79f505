"""One forward of a model, as calls of tensors."""
