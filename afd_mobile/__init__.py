"""AFD-Module: adaptive feature de-drifting for compressed-image classification on phones."""

__version__ = "0.1.0"
