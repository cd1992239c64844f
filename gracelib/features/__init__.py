"""One response, one vector: per-response gradients of a student, projected. With `projection`, the only definitions that need torch."""
