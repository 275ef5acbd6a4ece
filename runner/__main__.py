"""The composition root: `runner …`. The only module that may import everything."""

import signal
import sys


def main() -> None:
    """Run the command line."""
    try:
        # Imported here, as Ctrl-C while that lasts is no error either.
        from runner.cli.app import app  # noqa: PLC0415

        app()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
