"""What a run will do, before its graph is built."""
