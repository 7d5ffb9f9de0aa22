"""The command with the drivers of ``toys``, as a version that no cluster has: its code goes along with a job."""

from pathlib import Path

import cvjobs
from cvjobs import jobs
from cvjobs.cli import main

cvjobs.__version__ = "0+toys"
jobs.__path__.append(str(Path(__file__).parent / "toys"))
raise SystemExit(main())
