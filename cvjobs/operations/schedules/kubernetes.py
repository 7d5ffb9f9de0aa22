"""A Kubernetes CronJob, and the pipeline file as a ConfigMap that is mounted where the file is here."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import yaml

from cvjobs import __version__
from cvjobs.common.errors import WrongUse
from cvjobs.operations.cron_expression import Expression
from cvjobs.operations.schedule_files import ScheduleSpec

LONGEST = 52  # characters of a CronJob's name: its jobs append eleven


def files(spec: ScheduleSpec) -> dict[str, str]:
    """Return one manifest of both; the state folder must be on a claim that outlives the pod."""
    pipeline = spec.pipeline
    name = re.sub(r"[^a-z0-9]+", "-", pipeline.name.lower()).strip("-")
    if len(name) > LONGEST:
        raise WrongUse(f"Kubernetes takes names of {LONGEST} characters and '{name}' is longer: shorten the 'name'.")
    if not any(pipeline.state.is_relative_to(PurePosixPath(path)) for _, path in spec.mounts):
        raise WrongUse(
            f"The state folder {pipeline.state} would go away with the pod: name the volume claim that holds it, "
            f"as in --mount CLAIM={pipeline.state.parent}."
        )
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "cvjobs"}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-pipeline", "labels": labels},
        "data": {"pipeline.yaml": _content(spec)},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "schedule": times(spec.when),
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "jobTemplate": {"metadata": {"labels": labels}, "spec": _job(spec, name)},
        },
    }
    about = (
        f"# cvjobs {__version__}: kubectl apply -f {pipeline.name}.k8s.yaml\n"
        "# The times are the cluster's, mostly UTC: spec.timeZone sets another zone,\n"
        "# in which times do not come, or come twice, where an hour is missing or does (daylight saving).\n"
    )
    return {f"{pipeline.name}.k8s.yaml": about + yaml.dump_all([config, job], Dumper=_Dumper, sort_keys=False)}


def times(when: Expression) -> str:
    """Return cron's times as Kubernetes reads them; raises WrongUse where it would read other ones."""
    stepped = when.day.star and not when.day.full, when.weekday.star and not when.weekday.full
    if (stepped[0] and not when.weekday.full) or (stepped[1] and not when.day.full):
        raise WrongUse(
            f"--cron '{when}' means days on which both day fields agree, and to Kubernetes days on which either does: "
            "list one of them as *."
        )
    # There Sunday is 0 alone.
    weekday = when.weekday.text if when.weekday.star else ",".join(map(str, when.weekday.values))
    return " ".join([when.minute.text, when.hour.text, when.day.text, when.month.text, weekday])


def _content(spec: ScheduleSpec) -> str:
    try:
        return spec.pipeline.file.read_text()
    except UnicodeDecodeError:
        raise WrongUse(f"{spec.pipeline.file} is not UTF-8, and a ConfigMap must be: convert it.") from None


def _job(spec: ScheduleSpec, name: str) -> dict[str, Any]:
    file = str(spec.pipeline.file)
    mounts = [{"name": f"data-{i}", "mountPath": path} for i, (_, path) in enumerate(spec.mounts)]
    volumes = [
        {"name": f"data-{i}", "persistentVolumeClaim": {"claimName": claim}} for i, (claim, _) in enumerate(spec.mounts)
    ]
    container = {
        "name": "night",
        "image": spec.image,
        "command": ["cvjobs", "run", file],
        "env": [{"name": key, "value": value} for key, value in spec.pipeline.variables.items()],
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [
            *mounts,
            {"name": "pipeline", "mountPath": file, "subPath": "pipeline.yaml", "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - workers share memory there
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 120,
        "containers": [container],
        "volumes": [
            *volumes,
            {"name": "pipeline", "configMap": {"name": f"{name}-pipeline"}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    # A lost node is continued; what the command calls wrong use, a limit of time or money, or another night, is not.
    rule = {"action": "FailJob", "onExitCodes": {"containerName": "night", "operator": "In", "values": [2, 4, 5]}}
    return {"backoffLimit": 2, "podFailurePolicy": {"rules": [rule]}, "template": {"spec": pod}}


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and nothing as an alias: a person reads the manifest."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Write every value out."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
