"""Tuning with an equal budget: as many random trials for every method, and everything chosen on ID validation.

`search` draws the trials, `choose` reads their records and picks, `report` and `figure` present, `winner` writes
recipes that `rbft run --recipe` takes, `run` does it all.
"""
