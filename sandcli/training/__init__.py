"""Fine-tuning: trajectories to masked tokens to a TRL trainer. `sft` and `train` share this one training path."""
