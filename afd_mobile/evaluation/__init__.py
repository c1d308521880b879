"""Accuracy and drift of checkpoints, exports and classifiers."""
