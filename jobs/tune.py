"""Look for better settings as a Ray job: python jobs/tune.py CONFIG [--trials N] [--set key=value]... [--overwrite]."""

import sys

from segbatch.cli import main

main(["tune", *sys.argv[1:]])
