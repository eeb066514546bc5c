"""Cheapest fleets on Mélange's instances, against their known optima."""
