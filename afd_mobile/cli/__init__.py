"""The command lines of the model's own side."""
