"""`python -m edgekit` is the same as `edgekit`."""

from edgekit.cli.main import main

main()
