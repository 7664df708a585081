from .squares import Squares

__all__ = ["Squares"]
