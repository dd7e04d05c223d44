"""What an agent reads and writes, and the loop in which it acts."""
