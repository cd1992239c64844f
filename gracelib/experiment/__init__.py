"""The run: scales, stages, jobs, result tables, and what `make` does with them."""
