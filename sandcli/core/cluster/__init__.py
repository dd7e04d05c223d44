"""Crews on a Ray cluster: actors that each hold an engine and environments and do whole units."""
