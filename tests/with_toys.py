"""The command with the drivers and families of ``toys``, as a version that no cluster has: its code goes along."""

import signal
from pathlib import Path

import cvjobs
from cvjobs import drivers
from cvjobs.cli import main
from cvjobs.networks import families

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
cvjobs.__version__ = "0+toys"
drivers.__path__.append(str(Path(__file__).parent / "toys"))
families.__path__.append(str(Path(__file__).parent / "toys" / "families"))
raise SystemExit(main())
