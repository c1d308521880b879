"""A classifier from an ONNX file: its nodes as PyTorch's layers."""
