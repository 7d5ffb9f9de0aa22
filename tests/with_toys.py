"""The command with the drivers of ``toys``, as a version that no cluster has: its code goes along with a job."""

import signal
from pathlib import Path

import cvjobs
from cvjobs import drivers
from cvjobs.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
cvjobs.__version__ = "0+toys"
drivers.__path__.append(str(Path(__file__).parent / "toys"))
raise SystemExit(main())
