"""The command `householder-gan`; what it does is in `command`, which needs the extra `cli`."""

import sys

_NEEDED = ("rich", "typer")


def main() -> None:
    """Run the command, or say what to install. Errors of the user's are one sentence, status 2."""
    try:
        from householder_gan.command import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.exit(
            f"householder-gan: {error.name} is not installed: pip install 'householder-gan[cli]'"
        )
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"householder-gan: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
