"""`python -m eigenworks`."""

from eigenworks.cli import main

main()
