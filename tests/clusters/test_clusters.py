"""The files of clusters against the schemas of those who read them, and what a user gets wrong about them."""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ROOT, run, sentence

import cvjobs
from cvjobs.clusters import files, host, launcher
from cvjobs.clusters.jobs_api import wheel
from cvjobs.common import paths
from cvjobs.common.errors import WrongUse
from cvjobs.config import commands as config_commands

pytestmark = pytest.mark.slow

ANSWERS = {"head_ip": "10.0.0.1", "worker_ips": "10.0.0.2", "region": "us-east-1", "ImageId": "ami-12c6146b"}


def filled(tree: Any, key: str = "") -> Any:
    """A cluster's file as a user fills it in."""
    if isinstance(tree, dict):
        return {name: filled(value, name) for name, value in tree.items()}
    if isinstance(tree, list):
        return [filled(value, key) for value in tree]
    blank = isinstance(tree, str) and re.fullmatch("<[^<>]+>", tree)
    return ANSWERS.get(key, "answer") if blank else tree


def shipped(name: str) -> dict[str, Any]:
    """A shipped file, filled in."""
    found: dict[str, Any] = filled(yaml.safe_load(files.files()[name].read_text()))
    return found


def prepared(name: str, tmp_path: Path) -> dict[str, Any]:
    """What Ray's launcher makes of a file; it ends the process where the file is against its schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    document = launcher.document("night", shipped(name), tmp_path)
    assert yaml.safe_load(yaml.safe_dump(document)) == document
    found: dict[str, Any] = prepare_config(document)
    validate_config(found)
    return found


@pytest.mark.parametrize("name", sorted(files.files()))
def test_a_file_begins_with_two_lines_about_it_and_is_refused_until_it_is_filled_in(name: str) -> None:
    lines = files.files()[name].read_text().splitlines()
    assert [line.startswith("# ") for line in lines[:3]] == [True, True, False]
    if shipped(name) == yaml.safe_load("\n".join(lines)):
        assert files.described(name) == shipped(name)
    else:
        with pytest.raises(WrongUse, match=f"{name}.yaml is not filled in at .*: copy it, .* 'cvjobs cluster up ./"):
            files.described(name)


def test_every_file_closes_metrics_and_asks_for_the_token() -> None:
    safe = files.described("local")["environment"]
    assert safe["RAY_AUTH_MODE"] == "token"
    for name in ("hosts", "aws"):
        assert shipped(name)["environment"] == safe


def test_hosts_as_rays_launcher_reads_it(tmp_path: Path) -> None:
    found = prepared("hosts", tmp_path)
    assert found["cluster_name"] == "night"
    assert found["file_mounts"] == {"~/.cvjobs/setup": str(tmp_path)}
    assert found["available_node_types"]["local.cluster.node"]["min_workers"] == 1
    for commands in (found["head_start_ray_commands"], found["worker_start_ray_commands"]):
        assert "--labels=cvjobs=" in commands[0]
        for setting in ("RAY_AUTH_MODE=token", "RAY_DISABLE_METRICS=1", "CVJOBS_CLUSTER=night"):
            assert f"export {setting};" in commands[0]
        subprocess.run(["bash", "-n", "-c", commands[0]], check=True)
    assert "--dashboard-host=127.0.0.1" in found["head_start_ray_commands"][0]
    assert any(".whl" in command for command in found["setup_commands"])


def test_aws_as_rays_launcher_reads_it(tmp_path: Path) -> None:
    found = prepared("aws", tmp_path)
    assert found["available_node_types"]["worker"]["min_workers"] == found["max_workers"]
    assert found["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.faults
def test_aws_as_ec2_reads_it_and_gets_its_machines_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that Ray asks of EC2 until the machines run, and to end them, of moto's EC2."""
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho 'no route to host' >&2; exit 255\n")
    ssh.chmod(0o755)
    mine = tmp_path / "night.yaml"
    mine.write_text(yaml.safe_dump(shipped("aws")))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        assert run("cluster", "status", mine).out == "night is down\n"
        boto3.client("iam", "us-east-1").create_instance_profile(InstanceProfileName="answer")
        from ray.autoscaler._private.aws.config import bootstrap_aws
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        found = bootstrap_aws(prepared("aws", tmp_path))  # type: ignore[no-untyped-call]
        provider = AWSNodeProvider(found["provider"], "night")  # type: ignore[no-untyped-call]
        for kind in ("head", "worker"):
            tags = {
                "ray-node-type": kind,
                "ray-user-node-type": kind,
                "ray-node-name": kind,
                "ray-node-status": "up-to-date",
            }
            provider.create_node(found["available_node_types"][kind]["node_config"], tags, 1)
        machines = list(boto3.resource("ec2", "us-east-1").instances.all())
        lives = {(machine.instance_type, machine.instance_lifecycle) for machine in machines}
        assert lives == {("m6i.large", None), ("c6i.2xlarge", "spot")}
        assert "over SSH cannot be used (no route to host)" in sentence(run("cluster", "status", mine), 1)
        down = run("cluster", "down", mine)
        assert (down.code, down.out) == (0, "night is down\n"), down
        assert {machine.state["Name"] for machine in boto3.resource("ec2", "us-east-1").instances.all()} == {
            "terminated"
        }
    finally:
        server.stop()


def test_what_a_user_gets_wrong_about_a_file(tmp_path: Path) -> None:
    wrong = {
        "none.yaml": (None, "none.yaml cannot be read"),
        "garbage.yaml": ("a: [", "garbage.yaml is no YAML in line 1"),
        "list.yaml": ("- a", "list.yaml describes no cluster: its 'kind' must be one of"),
        "kind.yaml": ("kind: ../os", "'kind' must be one of"),
        "empty.yaml": ("kind: launcher", "no mapping 'launcher.provider'"),
        "port.yaml": ("{kind: local, port: x}", "names no 'port'"),
        "two words.yaml": ("kind: local", "rename it"),
        "mine.yaml": ("{kind: launcher, launcher: {provider: {type: local}}}", "names no machine"),
        "text.yaml": ("{kind: launcher, launcher: {provider: {type: local, head_ip: a, worker_ips: b}}}", "names no"),
        "twice.yaml": (
            "{kind: launcher, launcher: {provider: {type: local, head_ip: a, worker_ips: [a]}}}",
            "one twice",
        ),
        "user.yaml": ("{kind: launcher, launcher: {provider: {type: local, head_ip: a}, auth: {}}}", "who logs in"),
    }
    for name, (content, said) in wrong.items():
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(WrongUse, match=re.escape(said)) as raised:
            call("status", tmp_path / name)
        assert str(raised.value).endswith(".")
    with pytest.raises(WrongUse, match=r"no cluster 'host' \(nearest: hosts\).*\./NAME\.yaml"):
        files.described("host")
    with pytest.raises(WrongUse, match="'file_mounts' under 'launcher' is written by cvjobs"):
        launcher.document("x", {"launcher": {"file_mounts": {}, "provider": {}}}, tmp_path)


def call(action: str, name: Path) -> Any:
    driver = config_commands.load("cluster")
    return driver.call(driver.Config(action=action, name=str(name)))


def test_a_host_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    file = shipped("hosts")
    file["launcher"]["provider"]["head_ip"] = "127.0.0.1"
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho 'ssh: connect to host 127.0.0.1 port 22: Connection refused' >&2; exit 255\n")
    ssh.chmod(0o755)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(file))
    ended = run(
        "cluster", "status", tmp_path / "mine.yaml", PATH=f"{tmp_path}:{os.environ['PATH']}", HOME=str(tmp_path)
    )
    assert "127.0.0.1 over SSH cannot be used (ssh: connect to host" in sentence(ended, 1)


def test_the_processes_of_a_cluster_end_and_no_others() -> None:
    name = f"marks{os.getpid()}"
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        subprocess.Popen(sleeper, env={**os.environ, host.MARK: name}) as ours,
        subprocess.Popen(sleeper, env={**os.environ, host.MARK: f"{name}-2"}) as other,
    ):
        assert [process.pid for process in host.processes(name)] == [ours.pid]
        ended = subprocess.run([sys.executable, "-m", "cvjobs.clusters.host", name], check=False)
        assert (ended.returncode, ours.wait(10), other.poll()) == (0, -15, None)
        other.kill()
    folder = host.folder(name)
    assert list(folder.iterdir()) == []
    folder.rmdir()


def test_the_wheel_that_goes_to_the_hosts_installs_and_pins_what_runs_here(tmp_path: Path) -> None:
    name, content = wheel.build()
    (tmp_path / name).write_bytes(content)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(tmp_path / "in"),
    ]
    subprocess.run([*pip, str(tmp_path / name)], check=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {name for name in archive.namelist() if not (tmp_path / "in" / name).is_file()} == set()
    assert (tmp_path / "in" / "bin" / "cvjobs").exists()
    assert (tmp_path / "in" / "cvjobs" / "places" / "hosts.yaml").read_bytes() == (
        paths.shipped("cluster") / "hosts.yaml"
    ).read_bytes()
    pins = dict(line.split("==") for line in wheel.constraints().splitlines())
    assert {"ray", "torch", "numpy", "timm"} <= pins.keys()
    assert not any("+" in version for version in pins.values())


def closed(required: str, **properties: Any) -> dict[str, Any]:
    """The schema of a mapping that has these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": required.split(),
    }


TEXT, COUNT, YES = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
ENV = {"type": "array", "items": closed("name value", name=TEXT, value=TEXT)}
LIMITS = closed("", requests=TEXTS, limits=TEXTS)
SECURE = closed(
    "allowPrivilegeEscalation capabilities seccompProfile",
    allowPrivilegeEscalation={"const": False},
    capabilities=closed("drop", drop={"const": ["ALL"]}),
    seccompProfile=closed("type", type={"const": "RuntimeDefault"}),
)
CONTAINER = closed(
    "name image securityContext resources",
    name=TEXT,
    image=TEXT,
    env=ENV,
    resources=LIMITS,
    securityContext=SECURE,
    volumeMounts={"type": "array", "items": closed("name mountPath", name=TEXT, mountPath=TEXT)},
)
POD = closed(
    "containers restartPolicy securityContext",
    automountServiceAccountToken=YES,
    containers={"type": "array", "minItems": 1, "items": CONTAINER},
    restartPolicy={"const": "Never"},  # what the second autoscaler demands
    securityContext=closed(
        "runAsNonRoot", runAsNonRoot={"const": True}, runAsUser=COUNT, runAsGroup=COUNT, fsGroup=COUNT
    ),
    volumes={"type": "array", "items": {"type": "object", "required": ["name"]}},
)
# The types of KubeRay 1.6's ray.io/v1, as far as the manifests use them.
GROUP = {"rayStartParams": TEXTS, "template": closed("spec", spec=POD), "labels": TEXTS, "resources": TEXTS}
SCALED = {"minReplicas": COUNT, "maxReplicas": COUNT, "replicas": COUNT, "groupName": TEXT}
CLUSTER = closed(
    "headGroupSpec rayVersion authOptions",
    rayVersion={"pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=closed("mode secretName", mode={"const": "token"}, secretName=TEXT),
    enableInTreeAutoscaling=YES,
    autoscalerOptions=closed(
        "",
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        env=ENV,
        resources=LIMITS,
        securityContext=SECURE,
    ),
    headGroupSpec=closed("rayStartParams template", **GROUP),
    workerGroupSpecs={"type": "array", "items": closed("groupName rayStartParams template", **GROUP, **SCALED)},
)
JOB = closed(
    "entrypoint rayClusterSpec",
    suspend=YES,
    shutdownAfterJobFinishes={"const": True},  # or it must not be suspended
    ttlSecondsAfterFinished=COUNT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypoint=TEXT,
    rayClusterSpec=CLUSTER,
    submitterPodTemplate=closed("spec", spec=POD),
)
NIGHT = closed("schedule jobTemplate", schedule=TEXT, timeZone=TEXT, suspend=YES, jobTemplate=JOB)


def test_the_manifests_are_what_kuberay_knows() -> None:
    import jsonschema  # type: ignore[import-untyped]

    from cvjobs.operations import cron_expression

    kinds = {"RayCluster": CLUSTER, "RayJob": JOB, "RayCronJob": NIGHT}
    manifests = shipped("kuberay")["manifests"]
    assert [manifest["kind"] for manifest in manifests] == list(kinds)
    for manifest in manifests:
        about = {"apiVersion": {"const": "ray.io/v1"}, "kind": TEXT, "metadata": closed("name", name=TEXT)}
        jsonschema.validate(manifest, closed("apiVersion kind metadata spec", **about, spec=kinds[manifest["kind"]]))
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?", manifest["metadata"]["name"])
    cluster, job, night = (manifest["spec"] for manifest in manifests)
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert cluster["rayVersion"] == pinned[1]
    assert (job["suspend"], night["suspend"], night["jobTemplate"]["suspend"]) == (True, True, False)
    cron_expression.parse(night["schedule"])
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    safe = files.described("local")["environment"]
    for group in groups:
        assert "labels" not in group["rayStartParams"]  # KubeRay refuses it there
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} not in container["env"]  # KubeRay's own
        assert {one["name"]: one["value"] for one in container["env"]} | {"RAY_AUTH_MODE": "token"} == safe
        names = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= names


KUBECTL = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
verb = next(word for word in sys.argv[1:] if not word.startswith("-"))
with open(here / "calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
if verb in ("apply", "delete"):
    (here / "given").write_text(sys.stdin.read())
    (here / "up").touch() if verb == "apply" else (here / "up").unlink(missing_ok=True)
if verb == "get" and (here / "up").exists():
    conditions = [{{"type": "HeadPodReady", "status": "True"}}]
    print(json.dumps({{"status": {{"conditions": conditions, "availableWorkerReplicas": 2}}}}))
if verb == "port-forward":
    sys.exit("error: unable to forward port")
"""


def test_kuberay_goes_up_and_down_and_the_token_is_on_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a program in place of kubectl: there is no Kubernetes here."""
    kubectl, given, calls = (tmp_path / name for name in ("kubectl", "given", "calls"))
    kubectl.write_text(KUBECTL.format(python=sys.executable))
    kubectl.chmod(0o755)
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(shipped("kuberay")))
    for name, value in {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_AUTH_TOKEN": "hunter2"}.items():
        monkeypatch.setenv(name, value)
    up = call("up", mine)
    line = "kubectl --namespace=default port-forward service/cvjobs-head-svc 8265:8265"
    assert str(up) == f"mine is up with 2 workers: run '{line}', then use --address http://127.0.0.1:8265"
    secret, *manifests = json.loads(given.read_text())["items"]
    assert manifests == shipped("kuberay")["manifests"]
    assert (secret["metadata"]["name"], secret["stringData"]) == ("cvjobs-token", {"auth_token": "hunter2"})
    assert str(call("down", mine)) == "mine is down"
    assert "hunter2" not in calls.read_text() + "".join(capfd.readouterr())
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(WrongUse, match="no program 'kubectl'"):
        call("status", mine)
    mine.write_text("{kind: kuberay, manifests: [1, {kind: RayCluster}]}")
    with pytest.raises(WrongUse, match="no RayCluster with a name and authOptions"):
        call("status", mine)


def test_the_image_holds_what_is_built_and_nothing_else() -> None:
    lines = re.sub(r"\\\n\s*", "", (ROOT / "cluster" / "Dockerfile").read_text()).splitlines()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    allowed = (ROOT / ".dockerignore").read_text().split("\n*\n")[1].split()
    assert sorted(f"!{source}" for source in sources) == sorted(allowed)
    assert fnmatch.fnmatch(f"dist/{wheel.build()[0]}", "dist/cvjobs-*.whl")
    assert f"ARG VERSION={cvjobs.__version__}" in lines
    assert "USER 1000:1000" in lines
    assert not [line for line in lines if re.search("(?i)token|secret|password|^ADD ", line)]
