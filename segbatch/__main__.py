"""``python -m segbatch``: what jobs run, since the interpreter of a cluster's nodes need not have our script."""

from segbatch.cli import main

main()
