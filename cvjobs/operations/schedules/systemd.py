"""A systemd service and the timer that starts it; systemd itself starts no service that is still running."""

from __future__ import annotations

from cvjobs import __version__
from cvjobs.operations.cron_expression import CronField, Expression
from cvjobs.operations.schedule_files import ScheduleSpec

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def files(spec: ScheduleSpec) -> dict[str, str]:
    """Return both units by their names."""
    pipeline = spec.pipeline
    variables = {"PATH": spec.path, **pipeline.variables}
    service = [
        f"# cvjobs {__version__}: with its timer into ~/.config/systemd/user or /etc/systemd/system, then",
        f"# systemctl [--user] daemon-reload && systemctl [--user] enable --now {pipeline.name}.timer",
        "[Unit]",
        f"Description={_specifiers(f'cvjobs run {pipeline.file}')}",
        "",
        "[Service]",
        "Type=oneshot",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in variables.items()),
        f"ExecStart={' '.join(_quoted(word.replace('$', '$$')) for word in spec.argv)}",
        "# The night passes a stop on to its step, which then brings its output to rest.",
        "KillMode=mixed",
        "TimeoutStopSec=120",
    ]
    timer = [
        f"# cvjobs {__version__}: starts {pipeline.name}.service at {spec.when}",
        "# On the day that an hour is missing (daylight saving), times in it do not come.",
        "[Unit]",
        f"Description={_specifiers(f'Times of cvjobs run {pipeline.file}')}",
        "",
        "[Timer]",
        *(f"OnCalendar={times}" for times in calendar(spec.when)),
        "AccuracySec=1s",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return {f"{pipeline.name}.service": "\n".join(service) + "\n", f"{pipeline.name}.timer": "\n".join(timer) + "\n"}


def calendar(when: Expression) -> list[str]:
    """Return the calendar events that together are exactly cron's times: two where either kind of day is enough."""
    days = _list(when.day)
    weekdays = "" if when.weekday.full else ",".join(_DAYS[value] for value in when.weekday.values) + " "
    clock = f"{_list(when.hour)}:{_list(when.minute)}:00"
    month = _list(when.month)
    if when.either and weekdays and days != "*":
        return [f"*-{month}-{days} {clock}", f"{weekdays}*-{month}-* {clock}"]
    if when.either:
        return [f"*-{month}-* {clock}"]
    return [f"{weekdays}*-{month}-{days} {clock}"]


def _list(field: CronField) -> str:
    return "*" if field.full else ",".join(f"{value:02d}" for value in field.values)


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_specifiers(escaped)}"'
