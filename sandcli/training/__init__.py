"""Fine-tuning: trajectories to masked tokens to a TRL trainer. The one training path, used by `sft` and `train`."""
