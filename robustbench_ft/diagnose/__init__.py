"""Diagnostics of tuned models: how far they moved from zero-shot, and whether that tells of their accuracy under shift.

Feature distortion and energy gap are those of Nam, Heo, Lee, *Lipsum-FT*, ICLR 2024. `measure` loads models and needs
torch; the other modules read what it returns.
"""
