"""Data that the package makes itself: a procedural landscape with its label, for ``segbatch demo``."""

from segbatch.demo.landscape import BANDS, CLASSES, make_landscape
from segbatch.demo.places import DemoFiles, LabelledImage, write_demo

__all__ = ["BANDS", "CLASSES", "DemoFiles", "LabelledImage", "make_landscape", "write_demo"]
