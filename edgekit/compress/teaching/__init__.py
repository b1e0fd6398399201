"""Fine-tuning: what a network is taught, by what, and how it is kept on the way."""
