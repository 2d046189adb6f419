"""Where the console script starts; the commands need the extra `cli`."""

import sys

_NEEDED = ("rich", "typer")


def main() -> None:
    """Run the command, or say what to install. Errors of the user's are one sentence, status 2."""
    try:
        from chemflow.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.exit(f"chemflow: {error.name} is not installed: pip install 'chemflow[cli]'")
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        print(f"chemflow: {error}", file=sys.stderr)
        raise SystemExit(2) from error
