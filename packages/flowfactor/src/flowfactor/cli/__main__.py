"""`python -m flowfactor.cli`, which is what torchrun starts."""

from flowfactor.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
