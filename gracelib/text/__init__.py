"""Prompts, responses and answers as files: read, matched, graded. No torch."""
