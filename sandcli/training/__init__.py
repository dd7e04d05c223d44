"""Fine-tuning: trajectories become masked tokens for a TRL trainer. `sft` and `train` share this code."""
