"""PyTorch to ONNX to TFLite, with every converter in a process of its own."""
