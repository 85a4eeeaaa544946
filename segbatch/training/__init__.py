"""Fitting a model on tiles read straight from the scenes, across Ray Train's workers."""
