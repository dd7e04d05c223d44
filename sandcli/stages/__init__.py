"""The stages of Algorithm 1, one a file; `work` is how every JSONL stage is planned, run, resumed and sealed."""
