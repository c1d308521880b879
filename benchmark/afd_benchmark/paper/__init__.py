"""The paper's Table VII, measured here."""
