"""What evaluated episodes say, in tables."""
