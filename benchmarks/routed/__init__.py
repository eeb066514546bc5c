"""Routed pipelines: the published suite solved again, beside what was published."""
