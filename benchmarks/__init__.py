"""Shift suites, one file each; `rbft list` shows them."""
