"""From a trained AFD-Module to verified ONNX and TFLite files."""
