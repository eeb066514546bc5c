"""The peer's answers beside ours, on the same measured latencies."""
