"""Measuring segbatch itself: speed, memory, seams, and how it compares with other programs."""
