"""The project's harness app on a phone."""
