"""What the paper says, and what a run of its own size needs."""
