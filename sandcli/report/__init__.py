"""What evaluated episodes say: the paper's tables and figures. It is given data, and knows no run directory."""
