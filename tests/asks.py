"""What answers without the token: ``python asks.py HOST:PORT ...`` prints it as JSON.

A place is "refused", asks for the "token" (every path, every method of every service of Ray's), or is "open: ...".
"""

from __future__ import annotations

import http.client
import importlib
import json
import pkgutil
import socket
import sys
import urllib.error
import urllib.request

PATHS = ("metrics", "api/jobs/", "api/job_agent/jobs/", "api/v0/nodes", "logs/", "no/such/page")
# Those of a service whose description Ray's wheel does not have in Python.
MORE = ("/ray.rpc.ObjectManagerService/Push", "/ray.rpc.ObjectManagerService/Pull")
PATIENCE = 3.0


def methods() -> dict[str, tuple[bool, bool]]:
    """Every method of Ray's services, and whether its questions and its answers are streams."""
    from ray.core import generated

    found = dict.fromkeys(MORE, (False, False))
    for module in pkgutil.iter_modules(generated.__path__):
        if module.name.endswith("_pb2"):
            described = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in described.services_by_name.values():
                for method in service.methods:
                    name = f"/{service.full_name}/{method.name}"
                    found[name] = (method.client_streaming, method.server_streaming)
    return found


def http_asks(place: str) -> dict[str, int]:
    """The status of each path; 0 where it is not HTTP that is spoken."""
    told = {}
    for path in PATHS:
        try:
            with urllib.request.urlopen(f"http://{place}/{path}", timeout=PATIENCE) as answer:
                told[path] = answer.status
        except urllib.error.HTTPError as error:
            told[path] = error.code
        except (OSError, ValueError, http.client.HTTPException):
            return {path: 0}
    return told


def grpc_asks(place: str) -> dict[str, str]:
    """The status of each method that is there."""
    import grpc  # type: ignore[import-untyped]

    told = {}
    with grpc.insecure_channel(place) as channel:
        for name, (asks, answers) in methods().items():
            kind = f"{'stream' if asks else 'unary'}_{'stream' if answers else 'unary'}"
            try:
                answer = getattr(channel, kind)(name)(iter([b""]) if asks else b"", timeout=PATIENCE)
                if answers:
                    next(answer, None)
                told[name] = "OK"
            except grpc.RpcError as error:
                told[name] = error.code().name
            if told[name] == "UNAVAILABLE":
                return {name: told[name]}
    return {name: status for name, status in told.items() if status != "UNIMPLEMENTED"}


def asks(place: str) -> str:
    """What a port does with who has no token."""
    address, _, port = place.rpartition(":")
    try:
        socket.create_connection((address, int(port)), PATIENCE).close()
    except OSError:
        return "refused"
    told: dict[str, object] = {**http_asks(place)}
    if 0 in told.values():
        told = {**grpc_asks(place)}
    wrong = {name: status for name, status in told.items() if status not in (401, "UNAUTHENTICATED")}
    return "token" if told and not wrong else f"open: {wrong}"


if __name__ == "__main__":
    print(json.dumps({place: asks(place) for place in sys.argv[1:]}))
