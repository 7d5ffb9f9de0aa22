"""Which ports of a Ray on this machine can be reached from other machines."""

from __future__ import annotations

import http.client
import ipaddress
from collections.abc import Iterator

import psutil

from cvjobs.clusters.ray_compat import NO_METRICS
from cvjobs.operations.doctor.finding import Finding

# Words of the command lines of Ray's own processes, and what listens there.
_PARTS = {
    "gcs_server": "the GCS",
    "raylet": "the raylet",
    "dashboard/dashboard.py": "the dashboard and the Jobs API",
    "dashboard/agent.py": "the agent",
    "ray::DashboardAgent": "the agent",
    "runtime_env/agent": "the agent of runtime environments",
    "ray::RuntimeEnvAgent": "the agent of runtime environments",
    "autoscaler/_private/monitor.py": "the autoscaler's metrics",
    "autoscaler/v2/monitor.py": "the autoscaler's metrics",
    "kuberay-autoscaler": "the autoscaler's metrics",
    "ray.util.client.server": "the client server",
    "ray::": "the workers",
}
# These ask for no token, or show everything to who has one, in clear text.
_CLOSED = ("dashboard", "metrics")
PATIENCE = 5.0


def check() -> Iterator[Finding]:
    """Look at what Ray's processes of this user (of all users, for root) listen on."""
    seen = False
    found: dict[str, set[tuple[str, int]]] = {}
    for process in psutil.process_iter():
        try:
            if part := _part(process):
                seen = True
                found.setdefault(part, set()).update(_open(process))
        except psutil.Error:
            continue
    if agent := found.get("the agent"):
        found["the agent's metrics"] = {place for place in agent if _tells(*place)}
        agent -= found["the agent's metrics"]
    for part, places in found.items():
        if places:
            yield _finding(part, sorted({port for _, port in places}))
    if not any(found.values()):
        what = "the Ray on this machine is reached from here alone" if seen else "no Ray is running on this machine"
        yield Finding.ok("ports", what)


def _part(process: psutil.Process) -> str | None:
    words = process.cmdline()[:3]
    return next((what for mark, what in _PARTS.items() if any(mark in word for word in words)), None)


def _open(process: psutil.Process) -> set[tuple[str, int]]:
    """Return the addresses and ports that a process listens on and that other machines may reach."""
    # The kernel's table may lose a line while other connections come and go: it is read twice.
    connections = [*process.net_connections("tcp"), *process.net_connections("tcp")]
    listening = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
    return {(address, port) for address, port in listening if not _loopback(address)}


def _tells(address: str, port: int) -> bool:
    """Return whether metrics are told there without a token."""
    connection = http.client.HTTPConnection(address, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False  # something else, or what asks for a token
    finally:
        connection.close()


def _loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def _finding(part: str, ports: list[int]) -> Finding:
    where = f"port{'s' * (len(ports) > 1)} {', '.join(map(str, ports))}"
    what = f"other machines can reach {part} of Ray ({where})"
    if any(word in part for word in _CLOSED):
        variables = ", ".join(f"{name}={value}" for name, value in NO_METRICS.items())
        fix = (
            f"Start Ray with --dashboard-host=127.0.0.1 and the variables {variables}, "
            f"or close {where} to other machines with a firewall."
        )
        return Finding.broken("ports", what, fix)
    return Finding.warning("ports", what, f"Let a firewall close {where} to all but the cluster's own machines.")
