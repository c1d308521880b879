"""Which operations a phone's delegates take; the rules are data in `delegates/`."""
