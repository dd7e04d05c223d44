"""What every stage stands on: artifacts, the plan of units, and the one runner."""
