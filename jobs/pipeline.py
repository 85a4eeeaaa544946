"""Train, map, evaluate and report as one Ray job: python jobs/pipeline.py CONFIG [--set key=value]..."""

import sys

from segbatch.cli import main

main(["run", *sys.argv[1:]])
