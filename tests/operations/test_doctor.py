"""``cvjobs doctor``: each setting is broken on purpose, and found with what to do."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from cvjobs.cli import main
from cvjobs.operations.doctor import (
    decoders,
    environment,
    faiss,
    gpus,
    library_versions,
    machine,
    ports,
    switches,
    token,
)
from cvjobs.operations.doctor.finding import Finding


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without a token, and an environment without Ray's settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", *switches.UNSAFE):
        monkeypatch.delenv(name, raising=False)


def bad(found: Iterator[Finding]) -> list[Finding]:
    """What is not as it should be; each has a sentence of what to do."""
    wrong = [finding for finding in found if finding.level != "ok"]
    assert all(finding.fix.endswith(".") and finding.what for finding in wrong)
    return wrong


def only(found: Iterator[Finding]) -> Finding:
    (finding,) = bad(found)
    return finding


def test_this_environment_is_as_cvjobs_wants_it() -> None:
    for subject in (library_versions, switches, environment, token, gpus, faiss, decoders):
        assert bad(subject.check()) == []


@pytest.mark.parametrize("name", switches.UNSAFE)
def test_an_unsafe_switch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "0")
    assert bad(switches.check()) == []
    monkeypatch.setenv(name, "1")
    finding = only(switches.check())
    assert finding.level == "broken"
    assert name in finding.what
    assert f"unset {name}" in finding.fix


def test_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bad(token.check()) == []
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("secret")
    file.chmod(0o600)
    assert bad(token.check()) == []
    for mode in (0o644, 0o620, 0o604):
        file.chmod(mode)
        finding = only(token.check())
        assert (finding.level, finding.fix) == ("broken", f"Run: chmod 600 {file}.")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert "Correct RAY_AUTH_TOKEN_PATH" in only(token.check()).fix
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    finding = only(token.check())
    assert finding.level == "warning"
    assert "secret" not in finding.what


@pytest.mark.parametrize(
    ("name", "value", "what", "fix"),
    [
        ("HOME", None, "HOME is not set", "Set HOME"),
        ("HOME", "", "HOME is not set", "Set HOME"),
        ("HOME", "/", "HOME is /", "Set HOME"),
        ("HOME", "relative", "HOME is relative, which does not begin with /", "Set HOME"),
        ("HOME", "/proc", "HOME is /proc, which cannot be written to", "Set HOME"),
        ("HOME", "/none", "HOME is /none, which is no folder", "Set HOME"),
        ("TORCH_HOME", "/proc/none", "TORCH_HOME is /proc/none, which cannot be written to", "unset TORCH_HOME"),
        ("XDG_CACHE_HOME", "/dev/null/x", "XDG_CACHE_HOME is /dev/null/x, which is no folder", "XDG_CACHE_HOME"),
        ("TMPDIR", "/none/at/all", "TMPDIR names /none/at/all, which cannot be written to", "unset TMPDIR"),
        ("RAY_TMPDIR", "/tmp/\xe9", "Ray cannot have its files in /tmp/\xe9: it has letters", "RAY_TMPDIR"),
        ("OMP_NUM_THREADS", "many", "OMP_NUM_THREADS is 'many', which is no number", "whole number"),
        ("OMP_NUM_THREADS", "0", "OMP_NUM_THREADS is '0', which is no number", "whole number"),
    ],
)
def test_a_variable_that_names_nothing_good(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, what: str, fix: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    finding = only(environment.check())
    assert finding.what.startswith(what)
    assert fix in finding.fix
    if name == "HOME" and value != "/proc":
        assert bad(token.check()) == []


def test_a_user_without_a_name_and_a_folder_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 12345)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert only(environment.check()).what.startswith("user 12345 has no name on this machine")
    monkeypatch.setenv("USER", "ada")
    assert bad(environment.check()) == []
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert only(environment.check()).what == "the working folder was deleted"
    monkeypatch.chdir(tmp_path)


def test_authentication_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert only(token.check()).fix == "Run: export RAY_AUTH_MODE=token."


LISTEN = (
    "import socket, sys; s = socket.create_server((sys.argv[1], 0)); print(s.getsockname()[1], flush=True); input()"
)


@pytest.mark.parametrize(("address", "open_"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_a_dashboard_that_others_reach(address: str, open_: bool, tmp_path: Path) -> None:
    program = tmp_path / "dashboard" / "dashboard.py"
    program.parent.mkdir()
    program.write_text(LISTEN)
    words = [sys.executable, str(program), address]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = [finding for finding in bad(ports.check()) if str(port) in finding.what]
        process.communicate("")
    assert bool(found) is open_
    assert all(finding.level == "broken" and "--dashboard-host=127.0.0.1" in finding.fix for finding in found)


METRICS = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[1])), self.end_headers()
server = http.server.HTTPServer(("0.0.0.0", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()  # a doctor of another test may ask too
"""


@pytest.mark.parametrize(("status", "level"), [(200, "broken"), (401, "warning")])
def test_an_agent_that_others_reach(status: int, level: str, tmp_path: Path) -> None:
    program = tmp_path / "dashboard" / "agent.py"
    program.parent.mkdir()
    program.write_text(METRICS)
    words = [sys.executable, str(program), str(status)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        finding = only(finding for finding in ports.check() if str(port) in finding.what)
        process.kill()
    assert finding.level == level
    assert ("the agent's metrics" in finding.what) is (level == "broken")


def test_versions_that_do_not_work_or_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "Requires-Dist: torch (==2.14.1)\n"
    for name, version, more in (("torch", "2.9.1", ""), ("ray", "3.0.0", ""), ("torchvision", "0.29.1", other)):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [finding.what for finding in bad(library_versions.check())]
    assert "torch 2.9.1 is installed and cvjobs needs >=2.11" in found
    assert any(what.startswith("ray 3.0.0 is installed and cvjobs needs") for what in found)
    assert "torch 2.9.1 and torchvision 0.29.1 do not belong together: it needs torch==2.14.1" in found
    assert "torch 2.9.1 has a known hole" in found


def test_a_newer_torch_that_torchvision_allows_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name, version, more in (
        ("torch", "2.99.0", ""),
        ("torchvision", "0.29.2", "Requires-Dist: torch (>=2.14.0)\n"),
    ):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}")
        found[name] = version
    monkeypatch.syspath_prepend(str(tmp_path))
    assert bad(library_versions.check()) == []
    monkeypatch.setattr("torch.ops.torchvision", None)
    assert "its operators cannot be called" in only(library_versions.check()).what


def test_a_package_that_is_not_installed() -> None:
    assert bad(library_versions._one("no-such-package-of-ours>=1.0; extra == 'dev'")) == []
    assert (
        "pip install 'no-such-package-of-ours>=1.0'" in only(library_versions._one("no-such-package-of-ours>=1.0")).fix
    )


def test_a_faiss_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert "FAISS does not work" in only(faiss.check()).what


def test_a_format_that_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Image.SAVE, "AVIF")
    finding = only(decoders.check())
    assert finding.level == "broken"
    assert "AVIF is not decoded" in finding.what


def test_too_few_files_and_too_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
    try:
        monkeypatch.setattr(machine, "DISK", 1 << 60)
        found = bad(machine.check())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(finding.level == "warning" for finding in found)
    assert any("only 1,000 files" in finding.what and "ulimit -n" in finding.fix for finding in found)
    assert any("GiB free" in finding.what for finding in found)


def test_the_command_says_it_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert main(["doctor", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["broken"] >= 1
    assert len(answer["findings"]) == answer["ok"] + answer["warning"] + answer["broken"]
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "broken   switches  TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set" in said
    assert "Unset it: 'unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'." in said
