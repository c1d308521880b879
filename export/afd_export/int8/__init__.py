"""int8: passes over the graph that keep it close to float32, and where it is not."""
