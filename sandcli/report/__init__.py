"""Reports on evaluated runs: the paper's tables and figures, as text, as files and as an HTML page."""
