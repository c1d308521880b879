"""Classifiers: where they come from, their weights, their graph and where it is corrected."""
