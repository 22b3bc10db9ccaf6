"""How a sweep stands, from files alone: locks, failures, what was planned, the state of every cell. Torch-free."""
