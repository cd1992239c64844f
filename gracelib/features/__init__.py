"""One response, one vector: per-response gradients of a student, projected. The only definitions that need torch."""
