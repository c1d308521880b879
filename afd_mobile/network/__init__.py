"""The AFD-Module: its parts, how they are fused, and what they cost."""
