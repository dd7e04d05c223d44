"""Readers of trajectories in other projects' formats."""
