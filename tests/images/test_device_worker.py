"""The process that decodes on a device goes wrong: each image has its one answer all the same, and nothing is left."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import end, until
from device_rig import NEAR, SMALL, Basket, jpeg, loading, photo, programs

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.images import decode_worker, decoder_server, device_worker
from cvjobs.images.decode import decode
from cvjobs.images.decode_children import DecoderServer


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Another program in the place of the device's."""
    monkeypatch.setattr(device_worker, "PROGRAM", "odd_device")
    monkeypatch.setenv("ODD_DEVICE_MARK", str(tmp_path / "mark"))
    return monkeypatch


def photos(folder: Path, count: int) -> dict[str, bytes]:
    folder.mkdir()
    contents = {f"{number:04}.jpg": jpeg(photo(number % 50)) for number in range(count)}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return contents


def decoding() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "decode"]


def all_good(basket: Basket, contents: dict[str, bytes]) -> None:
    assert basket.errors == []
    assert basket.bad == {}
    assert set(basket.good) == set(contents)
    for name, (_, pixels) in basket.good.items():
        assert np.abs(pixels.astype(int) - decode(contents[name], SMALL, 1_000_000).pixels).max() <= NEAR, name


def descriptors() -> int:
    return psutil.Process().num_fds()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "error"), [("dies", JobFailed), ("useless", WrongUse)])
def test_one_that_decodes_nothing_from_the_start_ends_the_command(
    tmp_path: Path, odd: pytest.MonkeyPatch, how: str, error: type[Exception]
) -> None:
    odd.setenv("ODD_DEVICE", how)
    photos(tmp_path / "photos", 3)
    basket = Basket(3)
    before = descriptors()
    with loading(tmp_path / "photos", basket):
        until(lambda: basket.errors)
    assert [type(one) for one in basket.errors] == [error]
    assert "--decode cpu" in str(basket.errors[0])
    assert decoding() == programs() == []
    assert descriptors() <= before + 3  # of the decode server that is kept


def test_the_end_waits_for_no_start(tmp_path: Path, odd: pytest.MonkeyPatch) -> None:
    odd.setenv("ODD_DEVICE", "silent")
    odd.setattr(device_worker, "_FAREWELL", 600.0)
    photos(tmp_path / "photos", 3)
    basket = Basket(3)
    with loading(tmp_path / "photos", basket):
        until(programs)
    assert basket.errors == []
    assert decoding() == programs() == []


@pytest.mark.faults(minutes=2)
def test_one_that_hangs_before_its_first_image_is_found(tmp_path: Path, odd: pytest.MonkeyPatch) -> None:
    odd.setenv("ODD_DEVICE", "hangs")
    odd.setattr(decode_worker, "PATIENCE", 1.0)
    contents = photos(tmp_path / "photos", 40)
    basket = Basket(40)
    with loading(tmp_path / "photos", basket):
        until(lambda: basket.answers == len(contents) or basket.errors)
    all_good(basket, contents)
    assert decoding() == programs() == []


@pytest.mark.faults(minutes=2)
def test_one_that_decodes_nothing_any_more_costs_no_image(
    tmp_path: Path, odd: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    odd.setenv("ODD_DEVICE", "once")
    contents = photos(tmp_path / "photos", 60)
    basket = Basket(60)
    with loading(tmp_path / "photos", basket):
        until(lambda: basket.answers == len(contents) or basket.errors)
    all_good(basket, contents)
    assert capfd.readouterr().err.count("the processor decodes the rest") == 1
    assert decoding() == programs() == []


@pytest.mark.faults(minutes=2)
def test_where_nobody_decodes_what_it_leaves_all_threads_end(tmp_path: Path, odd: pytest.MonkeyPatch) -> None:
    odd.setenv("ODD_DEVICE", "refuses")
    photos(tmp_path / "photos", 200)
    basket = Basket(200)
    server = DecoderServer(keep=False)
    server.close()
    with loading(tmp_path / "photos", basket, together=4, server=server):
        until(lambda: basket.errors)
    assert [type(error) for error in basket.errors] == [JobFailed]
    assert decoding() == programs() == []


@pytest.mark.faults(minutes=2)
def test_a_stop_lets_go_of_what_waits_for_the_processor(tmp_path: Path, odd: pytest.MonkeyPatch) -> None:
    odd.setenv("ODD_DEVICE", "refuses")
    photos(tmp_path / "photos", 400)
    basket = Basket(400)
    with loading(tmp_path / "photos", basket, together=4):
        until(lambda: basket.answers)
    assert basket.errors == []
    assert 0 < basket.answers < 400
    assert decoding() == programs() == []


@pytest.mark.faults(minutes=2)
@pytest.mark.parametrize("how", ["memory", "size", "broken"])
def test_what_a_device_fails_at_is_decoded_all_the_same(tmp_path: Path, odd: pytest.MonkeyPatch, how: str) -> None:
    odd.setenv("ODD_DEVICE", how)
    contents = photos(tmp_path / "photos", 24)
    basket = Basket(24)
    with loading(tmp_path / "photos", basket):
        until(lambda: basket.answers == len(contents) or basket.errors)
    all_good(basket, contents)
    assert decoding() == programs() == []


@pytest.mark.faults(minutes=2)
def test_the_process_is_the_first_to_go_and_leaves_nothing_of_a_crash(tmp_path: Path) -> None:
    contents = photos(tmp_path / "photos", 8)
    basket = Basket(8)
    with loading(tmp_path / "photos", basket):
        until(lambda: basket.answers == len(contents) or basket.errors)
        (process,) = programs()
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    all_good(basket, contents)


@pytest.mark.faults(minutes=2)
def test_both_processes_die_again_and_again(tmp_path: Path) -> None:
    contents = photos(tmp_path / "photos", 500)
    basket = Basket(len(contents))
    killed = 0
    with loading(tmp_path / "photos", basket, together=4):
        while basket.answers < len(contents) and not basket.errors:
            if killed < 3 and basket.answers > 100 * killed:
                children = programs(decoder_server.__name__)[1:]
                end([*programs(), *children])
                killed += 1
            threading.Event().wait(0.05)
    all_good(basket, contents)
    assert killed == 3
    assert decoding() == programs() == []
