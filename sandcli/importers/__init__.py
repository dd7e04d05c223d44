"""Trajectories recorded elsewhere."""
