"""Operator curves refitted from measured tables."""
