"""What everything else may import: errors, files, commands, text. No torch."""
