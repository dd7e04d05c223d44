"""Evaluation panels: files that fix everything about an evaluation except the agent's weights."""
