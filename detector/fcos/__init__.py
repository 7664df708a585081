"""FCOS: its settings, points and their objects, head, objective, post-processing, and the detector made of them."""

from detector.fcos.points import assign_points

__all__ = ["assign_points"]
