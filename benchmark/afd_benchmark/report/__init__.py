"""What was measured, as a page, a chart, a table or a line."""
