"""``python -m cvjobs`` is the command ``cvjobs``, which can be stopped from here on: imports take most of its start."""

from cvjobs.common import phases, signals


def main() -> int:
    """Run the command line of this process and return its exit code."""
    phases.begin()
    signals.begin()
    from cvjobs import cli

    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
