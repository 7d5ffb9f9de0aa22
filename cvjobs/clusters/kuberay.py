"""A Ray cluster on Kubernetes: the manifests of its file, applied and deleted by ``kubectl``, and run by KubeRay."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cvjobs.clusters import auth_token
from cvjobs.clusters.files import Status
from cvjobs.clusters.jobs_api import stop
from cvjobs.clusters.jobs_api.tunnel import free, through, unusable
from cvjobs.common.errors import CvjobsError, WrongUse

PORT = 8265
READY = "15m"  # images are large
PLACE = "Kubernetes"


def up(name: str, file: dict[str, Any], say: Callable[[str], None]) -> Status:
    """Apply the manifests, changed ones too, and return when the head is ready."""
    auth_token.ensure(lasting=True)
    say("applying the manifests")
    _kubectl(file, "apply", "--server-side", "--force-conflicts", "--filename=-", given=_manifests(file))
    say("waiting for the head")
    _kubectl(file, "wait", "--for=condition=HeadPodReady", f"--timeout={READY}", f"raycluster/{_cluster(file)}")
    return status(name, file)


def down(name: str, file: dict[str, Any], say: Callable[[str], None]) -> Status:
    """Stop the jobs, delete what the manifests name and return when it is gone; volume claims stay."""
    if status(name, file).up:
        port = free()
        with suppress(CvjobsError), through(_forward(file, port), port, PLACE) as server:
            stop.stop_all(server, say)
    say("deleting the manifests")
    _kubectl(file, "delete", "--ignore-not-found", "--wait", "--filename=-", given=_manifests(file))
    return status(name, file)


def status(name: str, file: dict[str, Any]) -> Status:
    """Return whether the head is ready, and with how many workers."""
    cluster, address = _cluster(file), f"http://127.0.0.1:{PORT}"
    answer = _kubectl(file, "get", f"raycluster/{cluster}", "--ignore-not-found", "--output=json")
    found = json.loads(answer or "{}").get("status", {})
    ready = any(one["type"] == "HeadPodReady" and one["status"] == "True" for one in found.get("conditions", []))
    workers = found.get("availableWorkerReplicas", 0) if ready else 0
    told = f"{name} is down"
    if answer:
        told = f"{name} is not ready: 'kubectl describe raycluster/{cluster}' says why"
    if ready:
        line = shlex.join(["kubectl", *_forward(file, PORT)[1:]])
        told = f"{name} is up with {workers} workers: run '{line}', then use --address {address}"
    return Status(name=name, up=ready, address=address, machines=workers + int(ready), told=told)


def _forward(file: dict[str, Any], port: int) -> list[str]:
    return [_program(), _namespace(file), "port-forward", f"service/{_cluster(file)}-head-svc", f"{port}:{PORT}"]


def _kubectl(file: dict[str, Any], *words: str, given: str = "") -> str:
    ended = subprocess.run(
        [_program(), _namespace(file), *words], input=given, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise unusable(PLACE, ended.stderr)
    return ended.stdout


def _manifests(file: dict[str, Any]) -> str:
    """Return the manifests and the token's Secret as one document, which goes through a pipe."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _spec(file)["authOptions"]["secretName"]},
        "stringData": {"auth_token": auth_token.read()},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [secret, *file["manifests"]]})


def _cluster(file: dict[str, Any]) -> str:
    return str(_ray(file)["metadata"]["name"])


def _spec(file: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = _ray(file)["spec"]
    return spec


def _ray(file: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of the RayCluster; raises WrongUse for a file without one that asks for a token."""
    for manifest in file.get("manifests") or []:
        with suppress(TypeError, KeyError):
            auth = manifest["spec"]["authOptions"]
            named = manifest["metadata"]["name"] and auth["secretName"]
            if manifest["kind"] == "RayCluster" and auth["mode"] == "token" and named:
                found: dict[str, Any] = manifest
                return found
    raise WrongUse(
        "The cluster's file has no RayCluster with a name and authOptions {mode: token, secretName: NAME}: add one to "
        "'manifests', as the shipped one does."
    )


def _namespace(file: dict[str, Any]) -> str:
    return f"--namespace={file.get('namespace', 'default')}"


def _program() -> str:
    found = shutil.which("kubectl")
    if found is None:
        raise WrongUse("There is no program 'kubectl' on this machine: install it, and let it reach your Kubernetes.")
    return found
