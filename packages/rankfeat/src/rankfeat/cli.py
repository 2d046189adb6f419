"""The command `rankfeat`; what it does is in `rankfeat.command`, which needs the extra `cli`."""

import sys

_NEEDED = ("PIL", "rich", "torchvision", "typer")


def main() -> None:
    """Run the command, or say what to install."""
    try:
        from rankfeat.command import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.exit(f"rankfeat: {error.name} is not installed: pip install 'rankfeat[cli]'")
    app()
