"""TFLite's `benchmark_model` on a phone: its command line, its log, its figures."""
