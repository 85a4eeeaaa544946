"""Semantic segmentation of images too large for memory: train, map and report with Ray."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("segbatch")
except PackageNotFoundError:
    # A Ray job runs from an uploaded source folder, which has no installed metadata.
    __version__ = "0+source"
