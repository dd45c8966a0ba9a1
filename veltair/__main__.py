"""`python -m veltair`: the same as the `veltair` command."""

from veltair.cli import main

main()
