"""The limits of control groups, read from made-up trees of both versions and from a real group."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvjobs.common import control_groups, devices

GB = 10**9
V1 = "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
V1_CPU = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "41 31 0:38 {top} {at} rw,relatime - cgroup2 cgroup2 rw\n"


def tree(root: Path, groups: str, mounts: str, files: dict[str, object], machine: int = 24 * GB) -> Path:
    """Write what /proc and /sys/fs/cgroup say of a process; return ``root``."""
    files = {
        "proc/self/cgroup": groups,
        "proc/self/mountinfo": "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts,
        "proc/meminfo": f"MemTotal: {machine >> 10} kB\n",
        **{f"sys/fs/cgroup/{name}": content for name, content in files.items()},
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n" if isinstance(content, int) else str(content))
    return root


def test_the_smallest_limit_of_all_groups_above_holds(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "a.slice/memory.max": 2 * GB,
        "a.slice/memory.current": int(1.5 * GB),
        "a.slice/memory.stat": f"anon 5\ninactive_file {GB // 10}\nactive_file {GB // 10}\n",
        "a.slice/b/memory.max": "max\n",
        "a.slice/b/memory.current": GB,
        "a.slice/b/c/memory.max": 3 * GB,
        "a.slice/b/c/memory.current": GB,
        "a.slice/b/c/cpu.max": "max 100000\n",
        "a.slice/cpu.max": "150000 100000\n",
    }
    root = tree(tmp_path, "0::/a.slice/b/c\n", V2.format(top="/", at="/sys/fs/cgroup"), files)
    assert control_groups.memory_left(root) == (2 * GB, int(0.7 * GB))
    assert devices.memory(root) <= int(0.7 * GB)
    assert control_groups.cores(root) == 1.5
    assert devices.cpus(root) <= 2


def test_version_1_has_its_own_names_and_a_number_for_no_limit(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "memory/memory.limit_in_bytes": 9223372036854771712,
        "memory/memory.usage_in_bytes": 9 * GB,
        "memory/jobs/memory.limit_in_bytes": GB,
        "memory/jobs/memory.usage_in_bytes": GB // 2,
        "memory/jobs/memory.stat": f"inactive_file 7\ntotal_inactive_file {GB // 4}\n",
        "memory/jobs/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        "cpu,cpuacct/jobs/cpu.cfs_quota_us": 50_000,
        "cpu,cpuacct/jobs/cpu.cfs_period_us": 100_000,
        "cpu,cpuacct/cpu.cfs_quota_us": -1,
        "cpu,cpuacct/cpu.cfs_period_us": 100_000,
    }
    groups = "4:memory:/jobs\n1:cpu,cpuacct:/jobs\n0::/\n"
    mounts = V1.format(top="/") + V1_CPU.format(top="/") + V2.format(top="/", at="/sys/fs/cgroup/unified")
    root = tree(tmp_path, groups, mounts, files)
    assert control_groups.memory_left(root) == (GB, GB - GB // 4)
    assert control_groups.killed(root) == 3
    assert control_groups.cores(root) == 0.5
    assert devices.cpus(root) == 1


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path) -> None:
    """Version 1 names the host's path, which is what is mounted; version 2 in a namespace of its own names ``/``."""
    memory: dict[str, object] = {"memory/memory.limit_in_bytes": GB, "memory/memory.usage_in_bytes": 0}
    root = tree(tmp_path / "1", "4:memory:/docker/ab\n", V1.format(top="/docker/ab"), memory)
    assert control_groups.memory_left(root) == (GB, GB)
    own: dict[str, object] = {"memory.max": GB, "memory.current": 0, "memory.events": "oom 2\noom_kill 1\n"}
    root = tree(tmp_path / "2", "0::/\n", V2.format(top="/", at="/sys/fs/cgroup"), own)
    assert (control_groups.memory_left(root), control_groups.killed(root)) == ((GB, GB), 1)
    root = tree(tmp_path / "3", "0::/../other\n", V2.format(top="/", at="/sys/fs/cgroup"), own)
    assert control_groups.memory_left(root) == (GB, GB)


def test_without_groups_or_limits_nothing_is_limited(tmp_path: Path) -> None:
    assert control_groups.memory_left(tmp_path) is None
    assert control_groups.cores(tmp_path) is None
    assert control_groups.killed(tmp_path) == 0
    assert devices.cpus(tmp_path) >= 1
    more: dict[str, object] = {"memory.max": 2 * GB, "memory.current": 0}
    root = tree(tmp_path / "more", "0::/\n", V2.format(top="/", at="/sys/fs/cgroup"), more, machine=GB)
    assert control_groups.memory_left(root) is None  # more than the machine has


def test_the_files_of_this_machine_make_sense() -> None:
    if not os.path.exists("/proc/self/cgroup"):
        pytest.skip("control groups are Linux's")
    held = control_groups.memory_left()
    assert held is None or 0 <= held[1] <= held[0]
    assert control_groups.killed() >= 0
