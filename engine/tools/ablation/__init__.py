"""Ablations: a grid of variants, learning rates and seeds, its runs, and what they say."""
