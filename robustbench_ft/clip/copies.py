"""Copies to a GPU that the host does not wait for."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor.to(device)`; from host memory to a GPU through pinned memory, in the order of the device's own work.

    A copy from memory that is not pinned holds the host until the GPU has done all that it was given before.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Sender:
    """Copies to a GPU on a stream of its own, beside what the GPU computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def send(self, pinned: Tensor) -> Tensor:
        """Begin the copy of pinned memory; use what is returned after `wait_for` it."""
        if self.stream is None:
            return pinned.to(self.device)
        with torch.cuda.stream(self.stream):
            return pinned.to(self.device, non_blocking=True)

    def wait_for(self, sent: Tensor) -> Tensor:
        """Let the device's main stream wait for the copy; the host goes on."""
        if self.stream is not None:
            main = torch.cuda.current_stream(self.device)
            main.wait_stream(self.stream)
            sent.record_stream(main)  # its memory is not given to another copy while the main stream reads it
        return sent
