"""Trained modules as files: what they remember, and which classifiers they fit."""
