"""The program behind which a cluster is reached: it ends with the command."""

from __future__ import annotations

import sys

import psutil
from commands import gone, words_of

from cvjobs.clusters.jobs_api import tunnel

STUBBORN = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        listener.accept()
"""


def test_a_tunnel_that_does_not_end_when_it_is_asked_to_is_ended() -> None:
    port = tunnel.free()
    argv = [sys.executable, "-c", STUBBORN, str(port)]
    with tunnel.through(argv, port, "the place") as server:
        assert server.address == f"http://127.0.0.1:{port}"
        (program,) = (child for child in psutil.Process().children() if words_of(child) == argv)
    assert gone(program)
