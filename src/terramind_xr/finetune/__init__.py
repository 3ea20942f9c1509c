"""Fine-tuning with terratorch: the demo in its registry, and data for its tasks."""
