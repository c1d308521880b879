"""A phone over adb: its facts, a session on it, and a run's cassette."""
