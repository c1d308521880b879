"""Pictures: found, read, degraded, and drawn as crops."""
