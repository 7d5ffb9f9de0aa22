"""Several machines on this one: each has a network, processes, mounts and a name of its own, all on one bridge.

A machine is what its first process holds. That one ends with this process, however this ends, and the kernel then ends
all others of the machine and removes its network: nothing has to be cleaned up.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from commands import TESTS, environment, until

import cvjobs
from cvjobs.common import devices
from cvjobs.common.paths import shipped

# Ends with the thread that starts it: a machine does not outlive the tests.
HELD = ["setpriv", "--pdeathsig", "KILL", "unshare", "--kill-child", "--fork"]
MACHINE = ["--net", "--pid", "--mount", "--uts", "--ipc", "--mount-proc"]
# Its first process also takes leave of those whose parent has ended; its name ($0) is that of its address ($1).
FIRST = (
    "set -e; hostname $0; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs -o mode=0700 tmpfs /mnt; "
    r"printf '127.0.0.1 localhost\n%s %s\n' $1 $0 > /mnt/hosts; mount --bind /mnt/hosts /etc/hosts; "
    "ip link set lo up; echo ready; sleep infinity & wait"
)
SWITCH = (
    "set -e; ip link add bridge type bridge; ip link set bridge up; ip link set lo up; echo ready; exec sleep infinity"
)
# Prints the status and the body of an answer, or 0 and why there is none.
FETCH = """
import http.client, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]} if sys.argv[2] else {})
try:
    with urllib.request.urlopen(request, timeout=5) as answer:
        print(answer.status, answer.read().decode(errors="replace"))
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode(errors="replace"))
except (OSError, ValueError, http.client.HTTPException) as error:  # HTTPException: it is no HTTP
    print(0, error)
"""
_NUMBERS = itertools.count()  # of clusters of this process
PORT, API = 6379, "http://127.0.0.1:8265"
RAY = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"


def refusal() -> str:
    """Why there can be no such machines here, "" where they can."""
    if missing := [name for name in ("setpriv", "unshare", "nsenter", "ip") if not shutil.which(name)]:
        return f"this machine has no {missing[0]}"
    probe = "mount -t tmpfs tmpfs /mnt && ip link add one type bridge && ip link add two type veth peer name three"
    ended = subprocess.run(["unshare", *MACHINE, "--fork", "sh", "-c", probe], capture_output=True, check=False)
    return f"this user may not make namespaces ({ended.stderr.decode().strip()})" if ended.returncode else ""


class Holder:
    """A process whose namespaces others enter."""

    def __init__(self, *words: str) -> None:
        self._outer = subprocess.Popen([*HELD, *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._outer.stdout is not None
        assert self._outer.stdout.readline() == "ready\n", "no machine was made"
        (inner,) = psutil.Process(self._outer.pid).children()
        self.pid = inner.pid

    def words(self, *words: object) -> list[str]:
        """The command line that runs a program in there."""
        return ["nsenter", "--target", str(self.pid), "--all", *map(str, words)]

    def do(self, *words: object) -> str:
        """Run a program in there and return what it printed; it must succeed."""
        ended = subprocess.run(self.words(*words), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, (words, ended)
        return ended.stdout

    def on(self) -> bool:
        """Whether it has not ended."""
        return self._outer.poll() is None

    def end(self) -> None:
        """End everything in there, as when the power fails."""
        self._outer.kill()
        self._outer.wait()
        if self._outer.stdout:
            self._outer.stdout.close()


class Host(Holder):
    """A machine; ``ray`` is what holds Ray there."""

    def __init__(self, name: str, switch: Holder, address: str) -> None:
        super().__init__(*MACHINE, "bash", "-c", FIRST, name, address)
        self.name, self.address, self._switch = name, address, switch
        self.ray: subprocess.Popen[bytes] | None = None
        switch.do("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        switch.do("ip", "link", "set", name, "master", "bridge", "up")
        self.do("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.do("ip", "link", "set", "eth0", "up")
        # Ray listens for others where there is a way to the world; that nothing is there is no matter.
        self.do("ip", "route", "add", "default", "via", f"{address.rpartition('.')[0]}.254")

    def cut(self) -> None:
        """Pull the cable."""
        self._switch.do("ip", "link", "set", self.name, "down")

    def heal(self) -> None:
        """Put the cable in again."""
        self._switch.do("ip", "link", "set", self.name, "up")

    def processes(self, *names: str) -> list[psutil.Process]:
        """The processes of the machine whose command lines hold one of the words, or all."""
        own, found = os.readlink(f"/proc/{self.pid}/ns/pid"), []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                line = " ".join(process.cmdline())
                here = os.readlink(f"/proc/{process.pid}/ns/pid") == own and process.pid != self.pid
                alive = process.status() != psutil.STATUS_ZOMBIE
                if here and alive and (not names or any(name in line for name in names)):
                    found.append(process)
        return found

    def listening(self) -> set[int]:
        """The ports on which other machines may reach this one."""
        lines = self.do("ss", "--listening", "--tcp", "--numeric", "--no-header").splitlines()
        places = [line.split()[3].rpartition(":") for line in lines]
        return {
            int(port)
            for ip, _, port in places
            if ip.strip("[]").removeprefix("::ffff:") in ("*", "0.0.0.0", "::", self.address)
        }

    def open(self, loopback: bool = False) -> dict[str, str]:
        """Where this machine listens, for others or on loopback, and which program does."""
        lines = self.do("ss", "--listening", "--tcp", "--udp", "--numeric", "--no-header", "--processes").splitlines()
        found = {}
        for line in lines:
            ip, _, port = line.split()[4].rpartition(":")
            ip = ip.partition("%")[0].strip("[]").removeprefix("::ffff:")
            place = f"{self.address if ip in ('*', '0.0.0.0', '::') else ip}:{port}"
            if (ip == "::1" or ip.startswith("127.")) == loopback:
                found[place] = line.partition('"')[2].partition('"')[0]
        return found

    def asks(self, *places: str) -> dict[str, str]:
        """What programs at those places do with who comes from here without the token (``asks.py``)."""
        told: dict[str, str] = json.loads(self.do(sys.executable, TESTS / "asks.py", *places))
        return told

    def start(self, words: list[str], variables: dict[str, str], log: Path) -> None:
        """Start Ray; what it says goes into a file."""
        with log.open("ab") as output:
            self.ray = subprocess.Popen(
                self.words(*words),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(**variables),
            )

    def runs(self) -> bool:
        """Whether Ray is there."""
        return self.ray is not None and self.ray.poll() is None

    def end(self) -> None:
        """See ``Holder``."""
        super().end()
        if self.ray:
            self.ray.wait()
        # The kernel takes its time to remove the network, and the next machine of this name needs its place.
        if self._switch.on():
            subprocess.run(self._switch.words("ip", "link", "delete", self.name), capture_output=True, check=False)

    def fetch(self, url: str, token: str = "") -> tuple[int, str]:
        """The status and the body that a URL answers there; status 0 where nothing answers."""
        status, _, body = self.do(sys.executable, "-c", FETCH, url, token).partition(" ")
        return int(status), body


def _environment(folder: Path, token: str) -> dict[str, str]:
    """The variables of Ray on a machine whose home is a folder, which gets the token."""
    secret = folder / ".ray" / "auth_token"
    secret.parent.mkdir(mode=0o700)
    secret.touch(0o600)
    secret.write_text(token)
    file: dict[str, Any] = yaml.safe_load((shipped("cluster") / "hosts.yaml").read_text())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**{name: str(value) for name, value in file["environment"].items()}, "HOME": str(folder), "PATH": path}


class Cluster:
    """Three machines that run Ray (``hosts``, the first is the head), one that does not, and this one at ``here``.

    ``gpus`` is how many each of the three pretends to have; it has at least as many cores as that, else ``cores``.
    """

    def __init__(
        self, folder: Path, variables: dict[str, str], gpus: Sequence[int] = (0, 0, 0), cores: Sequence[int] = (1, 1, 1)
    ) -> None:
        self._folder, self._gpus, self._cores = folder, gpus, cores
        number = next(_NUMBERS)
        self._net = f"10.{100 + number}.{os.getpid() % 256}"
        self.here = f"{self._net}.254"
        self.token = "a" * 64
        self.variables = {**_environment(folder, self.token), **variables}
        self._stack = ExitStack()
        with self._stack as stack:
            self._switch = Holder("--net", "bash", "-c", SWITCH)
            stack.callback(self._switch.end)
            cable = f"cvjobs{os.getpid()}-{number}"  # 15 letters at most
            subprocess.run(
                ["ip", "link", "add", cable, "type", "veth", "peer", "name", "out", "netns", str(self._switch.pid)],
                check=True,
            )
            subprocess.run(["ip", "address", "add", f"{self.here}/24", "dev", cable], check=True)
            subprocess.run(["ip", "link", "set", cable, "up"], check=True)
            self._switch.do("ip", "link", "set", "out", "master", "bridge", "up")
            self.hosts = [self._host(number) for number in range(3)]
            self.outsider = self._host(9)
            self._stack = stack.pop_all()

    def _host(self, number: int) -> Host:
        host = Host(f"host{number}", self._switch, f"{self._net}.{number + 1}")
        self._stack.callback(host.end)
        return host

    @property
    def head(self) -> Host:
        """The machine with the Jobs API."""
        return self.hosts[0]

    @property
    def client(self) -> dict[str, str]:
        """The variables of a command that runs on the head and is sent to the cluster."""
        return {**self.variables, "RAY_ADDRESS": API}

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def up(self) -> None:
        """Return when all three are there and run Ray: a new machine stands in for one that is gone."""
        for number, host in enumerate(self.hosts):
            if host.on():
                host.heal()
            else:
                self.hosts[number] = self._host(number)
        until(self._whole, 900)

    def _whole(self) -> bool:
        alive = self.alive()
        for number, host in enumerate(self.hosts):
            # Ray ends by itself on a machine that the head has given up; it starts where the head is ready.
            if not host.runs() and (number == 0 or self.head.address in alive):
                own = {devices.SIMULATED: str(self._gpus[number])}
                host.start(self._start(number), {**self.variables, **own}, self._folder / f"{host.name}.log")
        return len(alive) == len(self.hosts)

    def _start(self, number: int) -> list[str]:
        role = [f"--address={self.head.address}:{PORT}"]
        if number == 0:
            role = ["--head", f"--port={PORT}", "--dashboard-host=127.0.0.1", "--dashboard-port=8265"]
        gpus = self._gpus[number]
        options = ["--block", "--disable-usage-stats", "--object-store-memory=80000000", "--include-log-monitor=false"]
        options += [f"--num-cpus={max(gpus, self._cores[number])}", f"--num-gpus={gpus}"]
        own = [f"--node-ip-address={self.hosts[number].address}", "--temp-dir=/mnt/ray"]
        return [RAY, "start", *role, *own, *options, f"--labels=cvjobs={cvjobs.__version__}"]

    def alive(self) -> dict[str, str]:
        """The ids of Ray's nodes by the address of their machine; {} where the head does not answer."""
        return {node["node_ip"]: node["node_id"] for node in self._told("nodes") if node["state"] == "ALIVE"}

    def seats(self) -> dict[str, list[dict[str, float]]]:
        """What each worker of trainings has of its machine now, by the name of the host."""
        names = {self.alive().get(host.address): host.name for host in self.hosts}
        found: dict[str, list[dict[str, float]]] = {}
        for group in self._told("placement_groups"):
            for bundle in group["bundles"] if group["state"] == "CREATED" else []:
                found.setdefault(names[bundle["node_id"]], []).append(bundle["unit_resources"])
        return found

    def actors(self, name: str) -> Counter[tuple[str, float, float]]:
        """How many actors of a class there are now, by host, CPUs and GPUs of each."""
        names, found = {self.alive().get(host.address): host.name for host in self.hosts}, Counter[Any]()
        for actor in self._told("actors"):
            if actor["state"] == "ALIVE" and actor["class_name"] == name:
                has = actor["required_resources"]
                found[names[actor["node_id"]], has.get("CPU", 0.0), has.get("GPU", 0.0)] += 1
        return found

    def _told(self, what: str) -> list[dict[str, Any]]:
        status, body = self.head.fetch(f"{API}/api/v0/{what}?detail=true", self.token)
        found: list[dict[str, Any]] = json.loads(body)["data"]["result"]["result"] if status == 200 else []
        return found

    def drain(self, host: Host, seconds: int) -> None:
        """Tell Ray that a machine will be taken away."""
        words = [RAY, "drain-node", f"--address={self.head.address}:{PORT}", "--node-id", self.alive()[host.address]]
        reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        ended = subprocess.run(
            self.head.words(*words, *reason, "--deadline-remaining-seconds", seconds),
            capture_output=True,
            env=environment(**self.variables),
            check=False,
        )
        assert ended.returncode == 0, ended


@contextmanager
def machines(count: int) -> Iterator[list[Host]]:
    """Machines on one bridge, on which nothing runs; skips the test where there can be none."""
    if reason := refusal():
        pytest.skip(reason)
    with ExitStack() as stack:
        switch = Holder("--net", "bash", "-c", SWITCH)
        stack.callback(switch.end)
        made = []
        for number in range(count):
            made.append(Host(f"machine{number}", switch, f"10.78.{os.getpid() % 256}.{number + 1}"))
            stack.callback(made[-1].end)
        yield made


@contextmanager
def cluster(
    folder: Path, gpus: Sequence[int] = (0, 0, 0), cores: Sequence[int] = (1, 1, 1), /, **variables: str
) -> Iterator[Cluster]:
    """Three machines with Ray and these variables, whose home is a folder; skips the test where there can be none."""
    if reason := refusal():
        pytest.skip(reason)
    made = Cluster(folder, variables, gpus, cores)
    try:
        made.up()
        yield made
    finally:
        made.close()


@contextmanager
def autoscaled(folder: Path, kinds: dict[str, dict[str, float]], most: int, **variables: str) -> Iterator[Autoscaled]:
    """A machine whose Ray starts no worker until one is asked for, and then as many machines as are wanted on itself.

    ``kinds`` are what machines of each name have, and there may be ``most`` of each.
    """
    worker = {"node_config": {}, "min_workers": 0, "max_workers": most}
    types: dict[str, Any] = {name: {"resources": has, **worker} for name, has in kinds.items()}
    # Of this name is what the provider takes the head for.
    types["ray.head.default"] = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    lists: tuple[str, ...] = (
        "initialization_commands",
        "setup_commands",
        "head_setup_commands",
        "worker_setup_commands",
    )
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude")
    config = {
        "cluster_name": "tests",
        "max_workers": most * len(kinds),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "provider": {"type": "fake_multinode", "disable_node_updaters": True, "disable_launch_config_check": True},
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "rsync_filter": [],
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        **{name: [] for name in lists},
    }
    file = folder / "autoscaler.yaml"
    file.write_text(json.dumps(config))
    own = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", **variables}
    with machines(1) as (host,):
        own = {**_environment(folder, "a" * 64), **own}
        words = [RAY, "start", "--head", "--block", f"--port={PORT}", f"--autoscaling-config={file}", "--num-cpus=0"]
        words += ["--num-gpus=0", "--object-store-memory=80000000", "--include-log-monitor=false"]
        words += [f"--node-ip-address={host.address}", "--temp-dir=/mnt/ray", "--disable-usage-stats"]
        host.start(words, own, folder / "head.log")
        until(lambda: f"{PORT}" in host.do("ss", "--listening", "--tcp", "--numeric"), 120)
        yield Autoscaled(host, own)


@dataclass(frozen=True)
class Autoscaled:
    """See ``autoscaled``."""

    host: Host
    variables: dict[str, str]

    @property
    def address(self) -> str:
        """The address of its Ray."""
        return f"{self.host.address}:{PORT}"
