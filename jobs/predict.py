"""Map scenes as a Ray job: python jobs/predict.py --config CONFIG [--set key=value]... [--overwrite]."""

import sys

from segbatch.cli import main

main(["predict", *sys.argv[1:]])
