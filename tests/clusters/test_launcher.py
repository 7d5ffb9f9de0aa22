"""A list of hosts for real: two machines with sshd, started by Ray's launcher from a third, used, and left clean."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commands import CLI, Ended, exact, run, some, started, until
from hosts import SWITCH, Holder, Host, refusal

from cvjobs.clusters import files

pytestmark = pytest.mark.faults
SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
NAME = f"hosts{os.getpid()}"
SSHD = """
HostKey {home}/.ssh/host
AuthorizedKeysFile {home}/.ssh/authorized_keys
PasswordAuthentication no
PermitRootLogin yes
StrictModes no
PidFile none
"""


class Machines:
    """Two machines that can be logged in to, and one to do it from, whose home is ``home``."""

    def __init__(self, folder: Path, switch: Holder) -> None:
        self.home, self.net = folder / "home", f"10.78.{os.getpid() % 256}"
        self.key = folder / "key"
        self.home.mkdir()
        keygen(self.key)
        self.client = Host("client", switch, f"{self.net}.9")
        self.hosts = [Host(f"host{number}", switch, f"{self.net}.{number + 1}") for number in range(2)]
        for host in self.hosts:
            self._serve(host, folder / host.name)
        self.file = folder / f"{NAME}.yaml"
        document = yaml.safe_load(files.files()["hosts"].read_text())
        first, other = (host.address for host in self.hosts)
        document["launcher"] |= {
            "provider": {"type": "local", "head_ip": first, "worker_ips": [other]},
            "auth": {"ssh_user": "root", "ssh_private_key": str(self.key)},
            "setup_commands": [f"mkdir -p ~/.cvjobs && ln -sfn {shlex.quote(sys.prefix)} ~/.cvjobs/env"],
        }
        self.file.write_text(yaml.safe_dump(document))

    def _serve(self, host: Host, folder: Path) -> None:
        """Give a machine a home and a folder for Ray of its own, and start sshd there."""
        home, python = Path.home(), Path(sys.base_prefix)
        (folder / "home" / ".ssh").mkdir(parents=True, mode=0o700)
        if python.is_relative_to(home):  # Python itself must still be seen
            inner = folder / "home" / python.relative_to(home)
            inner.mkdir(parents=True)
            host.do("mount", "--bind", python, inner)
        keygen(folder / "home" / ".ssh" / "host")
        shutil.copy(self.key.with_suffix(".pub"), folder / "home" / ".ssh" / "authorized_keys")
        host.do("mount", "--rbind", folder / "home", home)
        ray = Path(f"/tmp/cvjobs-{os.getuid()}-{NAME}")
        ray.mkdir(exist_ok=True, mode=0o700)
        host.do("mkdir", "-m", "700", "/mnt/ray")
        host.do("mount", "--bind", "/mnt/ray", ray)
        host.do("mount", "-t", "tmpfs", "tmpfs", "/run")
        host.do("mkdir", "-p", "/run/sshd")
        host.do("ip", "route", "replace", "default", "via", self.client.address)  # Ray asks which way is out
        settings = folder / "sshd_config"
        settings.write_text(SSHD.format(home=home))
        sshd = shutil.which("sshd", path=SBIN) or "sshd"
        host.start([sshd, "-D", "-e", "-f", str(settings)], {}, folder / "sshd.log")

    def cvjobs(self, *words: object) -> Ended:
        return run(*words, program=self.client.words(*CLI), HOME=str(self.home))

    def end(self) -> None:
        for machine in (*self.hosts, self.client):
            machine.end()


def keygen(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    if missing := [name for name in ("sshd", "ssh", "ssh-keygen", "rsync") if not shutil.which(name, path=SBIN)]:
        pytest.skip(f"this machine has no {missing[0]}")
    if reason := refusal():
        pytest.skip(reason)
    switch = Holder("--net", "bash", "-c", SWITCH)
    try:
        made = Machines(tmp_path, switch)
        yield made
        made.end()
    finally:
        switch.end()
        shutil.rmtree(f"/tmp/cvjobs-{os.getuid()}-{NAME}", ignore_errors=True)


def test_two_hosts_over_ssh(machines: Machines, photos: Path, tmp_path: Path) -> None:
    assert machines.cvjobs("cluster", "status", machines.file).out == f"{NAME} is down\n"
    up = machines.cvjobs("cluster", "up", machines.file)
    assert up.code == 0, up
    assert f"{NAME} is up with 2 of 2 machines: run 'ssh -N -L 8265:127.0.0.1:8265" in up.out
    assert machines.cvjobs("cluster", "up", machines.file).out == up.out  # it is up already

    token = (machines.home / ".ray" / "auth_token").read_text()
    log = Path(f"/tmp/cvjobs-{os.getuid()}-{NAME}/launcher.log").read_text()
    assert "ray start" in log
    assert token not in log
    secret = Path.home() / ".cvjobs" / "setup" / "auth_token"
    for host in machines.hosts:
        assert host.do("stat", "-c", "%a", secret.parent, secret).split() == ["700", "600"]
        assert host.do("cat", secret) == token
        assert not [process for process in host.processes() if token in " ".join(process.cmdline())]
        ports = {int(line.split()[3].rpartition(":")[2]) for line in host.do("ss", "-ltnH").splitlines()} - {22}
        assert len(ports) > 3
        for port in ports:
            for path in ("/metrics", "/api/jobs/"):
                status, _ = machines.client.fetch(f"http://{host.address}:{port}{path}")
                assert status in (0, 401), (host.name, port, path)

    source, out = some(photos, tmp_path / "photos", 20), tmp_path / "out"
    told = re.search("run '(.*)', then", up.out)
    assert told
    line = [*shlex.split(told[1]), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    with started(machines.client.words(*line)):
        until(lambda: "8265" in machines.client.do("ss", "-ltnH"), 30)
        words = ("embed", source, "-o", out, "--model", "thumbnail/4", "--workers", 3)
        ended = machines.cvjobs(*words, "--address", "http://127.0.0.1:8265")
    assert ended.code == 0, ended
    assert ended.out.startswith("20 listed = 20 ok + 0 failed + 0 skipped, missing 0\n")
    exact(out, source, 20)

    down = machines.cvjobs("cluster", "down", machines.file)
    assert (down.code, down.out) == (0, f"{NAME} is down\n"), down
    for host in machines.hosts:
        until(lambda: not host.processes("ray", "ssh -"), 15)  # noqa: B023 - it is asked at once
        assert host.do("ls", "-A", "/mnt/ray", Path.home() / ".cvjobs").split() == [
            "/mnt/ray:",
            f"{Path.home() / '.cvjobs'}:",
            "env",
        ]
        assert "ray_bootstrap" not in host.do("ls", "-A", Path.home())

    known = machines.home / ".cvjobs" / f"{NAME}.known_hosts"
    key = tmp_path / "other"
    keygen(key)
    known.write_text(f"{machines.hosts[0].address} {key.with_suffix('.pub').read_text()}")
    refused = machines.cvjobs("cluster", "up", machines.file)
    assert refused.code == 1
    assert "Host key verification failed" in refused.err
