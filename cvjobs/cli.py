"""The command ``cvjobs``: finds the driver by its file name, builds its Config, runs it, words what went wrong.

Nothing heavy is imported before a driver runs; what a command does is in its driver.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import os
import select
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Annotated, Any

import typer

import cvjobs
from cvjobs.common import extras
from cvjobs.common.errors import Stopped, WrongUse, check_memory, explained, limit
from cvjobs.common.progress import tell
from cvjobs.config import commands, fields, help_text, working_folder, wrong_words, yaml_file
from cvjobs.config.options import SubmitOptions, is_cluster

_ABOUT = "Batch computer-vision jobs over large collections of images."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code; errors are a sentence on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _streams():
        if instruction := os.environ.get("_CVJOBS_COMPLETE"):
            from cvjobs import completion

            return completion.complete(instruction, _parameters)
        return _told(words)


def _told(words: list[str]) -> int:
    try:
        code = _run(words)
        with commands.printing():
            return code
    except typer.TyperException as error:
        return _failed(_usage(error, words), error.exit_code)
    except KeyboardInterrupt:
        return _failed("Stopped.", Stopped.exit_code)
    except Exception as error:  # noqa: BLE001 - the last place that can tell a user where the traceback is
        gone = commands.Unprinted(commands.CLOSED.format("is closed")) if isinstance(error, _NoOutput) else None
        if known := gone or explained(error):
            return _failed(str(known), known.exit_code)
        return _closed(error) or _failed(extras.shadowed(error) or extras.lacking(error) or _bug(error), 1)
    except BaseException as error:
        if (known := limit(error)) is None:  # a library in Rust panics where a thread cannot be started
            raise
        return _failed(str(known), known.exit_code)


def _parameters(name: str) -> list[Any]:
    """Return the parameters of a command as Typer has them."""
    group: Any = typer.main.get_command(_single(name, commands.load(name)))
    found: list[Any] = group.commands[name].params
    return found


class _NoOutput(OSError):
    pass


class _Missing(io.TextIOBase):
    """Standard output where there is none: it was closed before this process began."""

    def write(self, _: str) -> int:
        raise _NoOutput(errno.EBADF, os.strerror(errno.EBADF))


class _Stderr:
    """Standard error; what it cannot take, for a disk is full or nobody reads, is no reason to end a job."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with contextlib.suppress(OSError):
            self._stream.flush()


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Give this process the three streams that it lacks: the next file that is opened would be taken for one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    before = sys.stdin, sys.stdout, sys.stderr
    if isinstance(sys.stdout, io.TextIOWrapper):  # of an encoding that may lack a name's letters, as ASCII does
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdin = before[0] or io.StringIO()
    sys.stdout = before[1] or _Missing()
    sys.stderr = _Stderr(before[2] or io.StringIO())
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _run(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        return int(_parse(_overview(), words or ["--help"]))
    if words[0] not in commands.files():
        raise WrongUse(wrong_words.command(words[0]))
    driver = commands.load(words[0])
    # Parsing returns the Config, and the driver runs outside of Typer, which handles some exceptions its own way.
    parsed = _parse(_single(words[0], driver), words)
    if isinstance(parsed, int):
        return parsed
    given, job = parsed
    check_memory()
    with working_folder.existing(given):
        if job is not None:
            from cvjobs.clusters.jobs_api import submit

            return submit.send(words[0], given, job)
        from cvjobs.clusters.jobs_api import runtime

        with runtime.job(given):
            return commands.run(driver, given)


def _parse(app: typer.Typer, words: list[str]) -> Any:
    """Return the command's Config, or the exit code where an option such as ``--help`` has done everything."""
    parsed = app(words, prog_name="cvjobs", standalone_mode=False)
    if isinstance(parsed, int) and parsed == Stopped.exit_code:  # Typer's own answer to KeyboardInterrupt
        raise KeyboardInterrupt
    return parsed


def _application(completion: bool = False) -> typer.Typer:
    return typer.Typer(
        help=_ABOUT,
        add_completion=completion,
        rich_markup_mode=None,  # importing rich takes as long as everything else
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cvjobs {cvjobs.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The options that stand before a command."""


def _overview() -> typer.Typer:
    """All commands with the first line of their help, none of them imported."""
    app = _application(completion=True)
    app.callback()(_options)
    for name, text in commands.described().items():
        app.command(name, short_help=text.partition("\n")[0])(_no_command)
    return app


def _no_command() -> None:
    raise WrongUse("The command comes first, as in 'cvjobs embed SOURCE -o OUT': see 'cvjobs --help'.")


def _single(name: str, driver: ModuleType) -> typer.Typer:
    app = _application()
    # Nothing stands before the command: Typer would import pydantic, half of the time of --help, for a flag that does.
    app.callback(add_help_option=False)(lambda: None)
    more = {"allow_extra_args": True}  # to say in ``_command`` what is meant by them
    app.command(name, help=driver.__doc__, cls=help_text.Command, context_settings=more)(_command(name, driver))
    return app


def _command(name: str, driver: ModuleType) -> Callable[..., Any]:
    """Return the function whose signature has the options; it returns the Config, and SubmitOptions for a cluster."""
    known = fields.fields(driver.Config)
    sendable = "address" in known and known["address"].optional

    def command(
        context_: typer.Context, config_: str | None = None, id_: str = "", detach_: bool = False, **values: Any
    ) -> Any:
        if context_.args:
            raise WrongUse(wrong_words.too_many(name, driver.Config, values, context_.args))
        given = yaml_file.section(driver.Config, name, commands.files(), config_)
        for key, field in known.items():
            source = context_.get_parameter_source(key)
            if source is not None and source.name != "DEFAULT":
                given[key] = fields.from_text(field, values[key], field.spelt)
        complete = fields.complete(driver.Config, given, lambda field: _missing(field, name, config_))
        wish = SubmitOptions(id=id_, detach=detach_)
        if sendable and is_cluster(complete.address):
            return complete, wish
        if wish != SubmitOptions():
            raise WrongUse("--id and --detach are for jobs on a cluster: give its --address http://HOST:8265, too.")
        return complete, None

    own = inspect.signature(command).parameters
    context = own["context_"].replace(annotation=typer.Context, kind=inspect.Parameter.KEYWORD_ONLY)
    hints = {
        "config_": Annotated[
            str | None,
            typer.Option(
                "--config", metavar="FILE", help=f"A file of options.  [default: {yaml_file.NAME}, where there is one]"
            ),
        ],
        "id_": Annotated[
            str,
            typer.Option(
                "--id",
                metavar="ID",
                help="The id of the job on a cluster; a job of that id is followed, not sent again.  [default: new]",
                rich_help_panel="Cluster and storage",
            ),
        ],
        "detach_": Annotated[
            bool,
            typer.Option(
                "--detach", help="Do not wait for the job on a cluster.", rich_help_panel="Cluster and storage"
            ),
        ],
    }
    more = [
        own[key].replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
        for key, hint in hints.items()
        if sendable or key == "config_"
    ]
    parameters = [context, *fields.command_signature(driver.Config).parameters.values(), *more]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _missing(field: fields.Field, command: str, file: str | None) -> str:
    if field.positional and (choices := field.choices):
        return f"{field.spelt} is missing: it is one of {', '.join(choices)}, as in 'cvjobs {command} {choices[0]}'."
    return (
        f"{field.spelt} is missing: give it on the command line, "
        f"or set '{field.name}' under '{command}' in {file or yaml_file.NAME}."
    )


def _usage(error: typer.TyperException, words: list[str]) -> str:
    command = "" if not words or words[0].startswith("-") else f" {words[0]}"
    if command and hasattr(error, "possibilities"):  # an option that there is not
        return wrong_words.option(words[0], str(getattr(error, "option_name", "")))
    sentence = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    return f"{sentence}: see 'cvjobs{command} --help'."


def _failed(sentence: str, code: int) -> int:
    tell(sentence)
    return code


def _bug(error: Exception) -> str:
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    try:
        with tempfile.NamedTemporaryFile("w", prefix="cvjobs-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        place = f"in {file.name}"
    except OSError:
        traceback.print_exception(error)
        place = "above"
    return f"{what}; this is a bug in cvjobs: please report it with the traceback {place}."


def _closed(error: Exception) -> int:
    """Return 1 where standard output was closed by its reader (``cvjobs models | head``): that is no bug; else 0."""
    output = select.poll()
    output.register(1, 0)
    if not isinstance(error, BrokenPipeError) or not output.poll(0):
        return 0
    commands.discard()
    return 1
