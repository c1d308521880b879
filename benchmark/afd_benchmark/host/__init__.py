"""This machine, every repeat in a process of its own."""
