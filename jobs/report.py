"""Rebuild a run's report as a Ray job: python jobs/report.py RUN_DIR."""

import sys

from segbatch.cli import main

main(["report", *sys.argv[1:]])
