"""Plans of experiments, and scripts that carry them out on other machines."""
