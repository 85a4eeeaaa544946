"""Measure segbatch on this machine, as segbatch bench does: python jobs/benchmark.py [run|peers|...] [--help]."""

import sys

from segbatch.cli import main

if __name__ == "__main__":  # the processes that are measured import this file too
    main(["bench", *sys.argv[1:]])
