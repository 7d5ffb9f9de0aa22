"""The program of the decode children: one preloaded parent that forks, and children that decode until closed.

Started as ``python -m cvjobs.images.decoder_server FD``; never a fork of the worker: that has threads and perhaps a
GPU. A child that is killed takes nothing with it; all end when their socket closes.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import signal
import socket
import sys

from cvjobs.images.child_limits import limit, limit_memory
from cvjobs.images.decode import prepare
from cvjobs.images.decode_service import Decoder, DecodeService
from cvjobs.images.ipc import DecodeSettings, receive, send

ROOM = 3 << 30


def main() -> None:
    """Preload, then fork a child for each socket that arrives, until the worker closes ours."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the worker decides when to end
        signal.signal(number, signal.SIG_IGN)
    prepare()
    import torch  # which it has imported

    torch.set_grad_enabled(False)
    gc.freeze()
    try:
        send(control, {"ready": os.getpid()})
    except OSError:
        return  # there was nothing to decode after all
    while True:
        try:
            message, descriptors = receive(control, 4)
        except (EOFError, OSError):
            return
        settings = DecodeSettings(**message)
        decoder = _decoder(settings.decoder)
        pid = os.fork()
        if pid == 0:
            control.close()
            service = DecodeService(descriptors, settings, decoder)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)  # libraries print warnings about bad images; our answer says it better
            os.dup2(nowhere, 2)
            limit_memory(ROOM)
            limit()
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            service.run()
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        send(control, {"pid": pid})


def _decoder(name: str) -> Decoder:
    module, _, function = name.partition(":")
    decoder: Decoder = getattr(importlib.import_module(module), function)
    return decoder


if __name__ == "__main__":
    main()
