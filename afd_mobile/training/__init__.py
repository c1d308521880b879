"""Training: the loop, what it minimises, and how it is validated."""
