"""How well a score picks a teacher: statistics over result tables. No torch, no drawing."""
