"""What the command line and the jobs do: each module is one command, with plain arguments."""
