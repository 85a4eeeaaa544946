"""Fit a model as a Ray job: python jobs/train.py CONFIG [--set key=value]... [--overwrite]."""

import sys

from segbatch.cli import main

main(["train", *sys.argv[1:]])
