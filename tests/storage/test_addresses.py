"""Where a list may lead on the network: the address that is connected to counts, however it is spelled or reached."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import TESTS, environment
from websites import Page, speaking, web

from cvjobs.storage.addresses import NEVER, NOT_PUBLIC, AddressRules, Barred
from cvjobs.storage.http import Web
from cvjobs.storage.refusal import Refused

METADATA = (
    *("169.254.169.254", "169.254.170.2", "2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376"),
    *("169.254.43518", "169.16689662", "0xA9.254.0251.254", "100.100.100.200", "0x646464c8", "168.63.129.16"),
    *("[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:a9fe:a9fe]", "[::169.254.169.254]"),
    *("[::ffff:0:169.254.169.254]", "[64:ff9b:1::a9fe:a9fe]"),
    *("[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::1]", "[fd00:ec2::254]", "[FD00:0EC2:0::254]", "[fe80::1%1]"),
    *("[fd20:ce::254]", "[fe80::a9fe:a9fe%1]", "[febf::1%1]", "[::ffff:100.100.100.200]"),
)
PRIVATE = (
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "10.1.2.3", "172.16.0.1"),
    *("192.168.1.1", "100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
    *("[::1]", "[::]", "[fc00::1]", "[fd12:3456::1]", "[ff02::1]", "[fec0::1]", "[2001:db8::1]", "[::ffff:10.0.0.1]"),
    *("[64:ff9b::10.0.0.1]", "[2002:0a00:0001::1]", "[::127.0.0.1]", "[64:ff9b:1::1]"),
)
PUBLIC = ("8.8.8.8", "134744072", "[2001:4860:4860::8888]", "[::ffff:8.8.8.8]", "[64:ff9b::8.8.8.8]")


@pytest.mark.parametrize("host", METADATA)
@pytest.mark.parametrize("confined", [False, True])
def test_a_metadata_address_is_refused_however_it_is_spelled(host: str, confined: bool) -> None:
    with pytest.raises(Barred, match="metadata"):
        AddressRules(confined).allowed(host, 80)
    for ask in (Web({}, AddressRules(confined)).look, Web({}, AddressRules(confined)).read):
        with pytest.raises(Refused, match="metadata"):
            ask(f"http://{host}/latest/meta-data/")


@pytest.mark.parametrize("host", PRIVATE)
def test_a_private_address_is_refused_to_the_confined_alone(host: str) -> None:
    assert AddressRules().allowed(host, 80)
    with pytest.raises(Barred, match="--confine"):
        AddressRules(confined=True).allowed(host, 80)
    assert AddressRules(confined=True, trusted=host).allowed(host, 80)


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_address_is_allowed(host: str) -> None:
    assert AddressRules(confined=True).allowed(host, 80)


class Resolver:
    """A resolver that answers with these lists of addresses, one after the other, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: Any, port: Any, *how: Any, **more: Any) -> list[Any]:
        if host[0].isdigit() or ":" in host or more.get("flags"):
            return list(_resolve(host, port, *how, **more))
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [place for address in found for place in _resolve(address, port, *how, **more)]


_resolve: Any = socket.getaddrinfo


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver(["127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", made)
    return made


def test_a_name_that_means_a_metadata_address_is_refused(resolver: Resolver) -> None:
    resolver.answers = [["169.254.169.254", "fd00:ec2::254"]]
    with pytest.raises(Refused, match="metadata"):
        Web({}).look("http://images.example/a.jpg")


def test_of_a_name_with_several_addresses_the_others_are_left_out(resolver: Resolver) -> None:
    """A machine of one's own network has a link-local address, too."""
    page = Page(b"content")
    with web({"/a": page}) as site:
        resolver.answers = [["fe80::1", "127.0.0.1"]]
        assert Web({}).read(f"http://nas.example:{site.rpartition(':')[2]}/a")[0] == b"content"


def test_what_was_checked_is_what_is_connected_to(resolver: Resolver) -> None:
    """A name that means another address at every look gets one look a connection."""
    page = Page(b"content")
    with web({"/a": page}) as site:
        uri = f"http://rebinds.example:{site.rpartition(':')[2]}/a"
        resolver.answers = [["127.0.0.1"], ["169.254.169.254"]]
        assert Web({}).read(uri)[0] == b"content"
        assert resolver.asked == 1
        with pytest.raises(Refused):
            Web({}).read(uri)
        assert resolver.asked == 2
    assert page.asked == ["GET"]


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest", "http://0xa9fea9fe/", "//[::ffff:a9fe:a9fe]/"])
def test_a_redirect_to_a_metadata_address_is_refused(to: str) -> None:
    with web({"/a": Page(b"", location="/b"), "/b": Page(b"", location=to)}) as site:
        for ask in (Web({}).look, Web({}).read):
            with pytest.raises(Refused, match="metadata"):
                ask(f"{site}/a")


def test_a_redirect_of_the_host_that_was_named_is_confined() -> None:
    there = Page(b"content")
    with (
        web({"/there": there}) as other,
        web({"/a": Page(b"", location=other.replace(".1:", ".2:") + "/there")}) as site,
    ):
        assert Web({}, AddressRules(True, "127.0.0.1")).look(f"{other}/there")[0] == 7
        with pytest.raises(Refused, match="--confine"):
            Web({}, AddressRules(True, "127.0.0.1")).look(f"{site}/a")
    assert there.asked == ["HEAD"]


def test_a_refusal_takes_no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, place: tried.append(place))
    with pytest.raises(Refused):
        Web({}).read("http://169.254.169.254/")
    assert tried == []


def test_a_proxy_is_told_of_no_metadata_address() -> None:
    """The proxy is the user's own, private or not, and connects by its own rules; a redirect is looked at as well."""
    told = {f"http://images.invalid/{name}": Page(b"content") for name in "ab"}
    told["http://images.invalid/b"].location = "http://169.254.169.254/"
    with web(told) as proxy:
        client = Web({"proxy_url": proxy}, AddressRules(confined=True))
        assert client.read("http://images.invalid/a")[0] == b"content"
        assert Web({"proxy_url": proxy}).look("http://images.invalid/a")[0] == 7
        for uri in (
            "http://images.invalid/b",
            "http://metadata.google.internal./computeMetadata/",
            "http://169.254.1/",
        ):
            with pytest.raises(Refused, match="metadata"):
                client.read(uri)
        with pytest.raises(Refused, match="--confine"):
            client.read("http://10.0.0.1/")
    assert [page.asked for page in told.values()] == [["GET", "HEAD"], ["GET"]]


def test_a_name_that_a_proxy_is_told_is_looked_at_by_the_confined(resolver: Resolver) -> None:
    with web({}) as proxy:
        resolver.answers = [["10.0.0.1", "8.8.8.8"]]
        with pytest.raises(Refused, match="--confine"):
            Web({"proxy_url": proxy}, AddressRules(confined=True)).look("http://two.example/a")
        assert resolver.asked == 1
        with pytest.raises(FileNotFoundError):
            Web({"proxy_url": proxy}).look("http://two.example/a")
        assert resolver.asked == 1, "one's own lists wait for no look of this machine at what the proxy looks up"


@pytest.mark.parametrize(
    "words",
    [
        b"SECRET-2.0-OpenSSH\r\n",
        b"HTTP/1.1 SECRET\r\n\r\n",
        b"HTTP/1.1 404 SECRET\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 418 SECRET\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: http://SECRET SECRET:SECRET/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 x\r\nLocation: SECRET://SECRET/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\nLast-Modified: SECRET\r\n\r\nSECRET",
        b"HTTP/1.1 206 OK\r\nContent-Length: 99\r\nContent-Range: bytes SECRET\r\n\r\nSECRET",
        b"SECRET" * 20000,
    ],
)
def test_no_error_repeats_what_a_server_said(words: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib3.Retry.sleep", lambda *_: None)
    with speaking(words) as site:
        for ask in (Web({}).look, Web({}).read):
            said = ""
            try:
                ask(f"{site}/a.jpg")
            except OSError as error:
                said = f"{error.strerror}"
            assert "secret" not in said.lower()


NAMESPACE = ("unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c")
INSIDE = """
ip link set lo up && ip addr add 169.254.169.254/32 dev lo && ip addr add 100.100.100.200/32 dev lo &&
mount --bind "$1/hosts" /etc/hosts && exec "$2" "$3" "$1"
"""


def test_a_metadata_service_that_is_there_hears_nothing(tmp_path: Path) -> None:
    """In a network of its own, where such a service answers: by address, by name, and behind a redirect."""
    if missing := [name for name in ("unshare", "ip", "mount") if not shutil.which(name)]:
        pytest.skip(f"network namespaces: this machine has no {missing[0]}")
    (tmp_path / "hosts").write_text("169.254.169.254 images.example metadata.google.internal\n127.0.0.1 localhost\n")
    probe = [*NAMESPACE, "ip link set lo up && mount --bind /etc/hostname /etc/hosts"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("network namespaces: this user may not make them")
    ended = subprocess.run(
        [*NAMESPACE, INSIDE, "-", str(tmp_path), sys.executable, str(TESTS / "metadata.py")],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended
    assert ended.stdout.splitlines() == ["asked without cvjobs: 1", "asked by cvjobs: 0", "entries refused: 10 of 10"]


def test_the_sentences_name_what_is_asked_for() -> None:
    assert "--confine" in NOT_PUBLIC
    assert "no list" in NEVER
