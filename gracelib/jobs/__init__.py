"""A result, its key, its folder: work that is kept, resumed and explained. Knows nothing of GRACE."""
