"""The command `flowfactor`; what it needs beyond the package comes by the extra `cli`."""

import sys
from collections.abc import Sequence

_NEEDED = ("rich", "typer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a wrong argument or file, 130 interrupted."""
    try:
        from flowfactor.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        print(
            f"flowfactor: {error.name} is not installed: pip install 'flowfactor[cli]'",
            file=sys.stderr,
        )
        return 2
    try:
        app(args=arguments, prog_name="flowfactor")
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"flowfactor: {error}", file=sys.stderr)
        return 2
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0
