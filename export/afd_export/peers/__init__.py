"""The paper's peers: networks that restore the picture before the classifier."""
