"""Where code runs: devices, the ranks of a torchrun, and the parent that starts them."""
