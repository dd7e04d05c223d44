"""Reports on made-up episodes, with numbers computed by hand."""
