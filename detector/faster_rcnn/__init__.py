"""Faster R-CNN: its settings, proposals and the regions they are, both heads, objective, post-processing, detector."""
