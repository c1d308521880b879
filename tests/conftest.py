"""Ctrl-C reaches the commands that tests start, also where a shell's `&` made pytest ignore it."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
