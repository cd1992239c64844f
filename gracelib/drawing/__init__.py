"""Figures from tables: styles, marks, captions, and one function a figure. No torch."""
