"""The composition root: `runner …`. The only module that may import everything."""

from runner.cli.app import app


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
