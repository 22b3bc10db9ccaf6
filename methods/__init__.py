"""Fine-tuning methods, one file each; `rbft list` shows them."""
