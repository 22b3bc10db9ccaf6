"""What a step and a decoded image cost, beside a bare loop and torchvision's loaders."""
