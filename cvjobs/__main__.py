"""``python -m cvjobs`` is the command ``cvjobs``."""

from cvjobs.cli import main

raise SystemExit(main())
