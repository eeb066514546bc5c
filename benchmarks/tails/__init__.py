"""Closed forms of the queueing tails against the discrete-event simulator."""
