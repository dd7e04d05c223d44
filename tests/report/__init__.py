"""What reports say, on made-up episodes with numbers worked out by hand."""
