"""`.tflite` files: run, read, and how old a runtime may be. No torch."""
