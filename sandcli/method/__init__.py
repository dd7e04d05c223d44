"""The paper's own steps as pure functions."""
