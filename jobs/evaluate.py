"""Compare class masks with labels as a Ray job: python jobs/evaluate.py --prediction P --label L --out DIR."""

import sys

from segbatch.cli import main

main(["evaluate", *sys.argv[1:]])
