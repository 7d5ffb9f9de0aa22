"""Commands as Python functions: what help() and an editor show of their parameters, and of what they return."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import re

import pytest

import cvjobs
from cvjobs.common import errors
from cvjobs.config import commands, fields, python_function

COMMANDS = sorted(commands.files())


def said(name: str) -> dict[str, str]:
    """The text about each parameter in a function's docstring, by name."""
    args = re.search(r"^Args:\n(.*?)^\S", f"{getattr(cvjobs, name).__doc__}", re.MULTILINE | re.DOTALL)
    assert args
    found = re.findall(r"^ {4}(\w+) (.*(?:\n {8}.*)*)", args[1], re.MULTILINE)
    return {parameter: " ".join(text.split()) for parameter, text in found}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_docstring_says_each_parameter_with_its_type_sentence_and_default(name: str) -> None:
    signature = inspect.signature(getattr(cvjobs, name))
    texts = said(name)
    assert list(texts) == list(signature.parameters)
    for field in fields.fields(commands.load(name).Config).values():
        text, parameter = texts[field.name], signature.parameters[field.name]
        assert text.startswith(f"({python_function.shown(parameter.annotation)}): ")
        sentence = " ".join((field.info.help or "").partition("  [default:")[0].split())
        assert sentence in text
        if field.required:
            assert parameter.default is inspect.Parameter.empty
        else:
            assert f" Default: {parameter.default!r}" in text
            assert parameter.default == field.default


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_returned_is_said(name: str) -> None:
    returned = inspect.signature(getattr(cvjobs, name)).return_annotation
    assert returned not in ("Any", "None", inspect.Signature.empty)
    assert re.search(rf"^Returns:\n    {re.escape(returned)}: \w", getattr(cvjobs, name).__doc__, re.MULTILINE)


def test_paths_and_lists_are_types_of_parameters() -> None:
    parameters = inspect.signature(cvjobs.classify).parameters
    shown = {name: python_function.shown(one.annotation) for name, one in parameters.items()}
    assert shown["source"] == "str | os.PathLike[str]"
    assert shown["labels"] == "str | os.PathLike[str] | None"
    assert shown["exclude"] == "list[str] | tuple[str, ...]"
    assert shown["truncated"] == "Literal['fail', 'use']"


def test_an_example_is_a_call() -> None:
    assert 'For example `cvjobs.query("index", "photo.jpg", k=5)`.' in str(cvjobs.query.__doc__)


def test_help_of_the_package_begins_with_the_commands() -> None:
    text = pydoc.plain(pydoc.render_doc(cvjobs))
    about = text[text.index("DESCRIPTION") : text.index("PACKAGE CONTENTS")]
    assert re.findall(r"^ {8}(\w+)  ", about, re.MULTILINE) == COMMANDS
    functions = text[text.index("FUNCTIONS") :]
    assert re.findall(r"^ {4}(\w+)\(", functions, re.MULTILINE) == sorted([*COMMANDS, "open"])


def test_a_function_is_one_object_of_the_package() -> None:
    assert cvjobs.embed is cvjobs.embed
    assert cvjobs.embed.__module__ == "cvjobs"
    assert pickle.loads(pickle.dumps(cvjobs.embed)) is cvjobs.embed


def test_the_exceptions_are_names_of_the_package() -> None:
    assert cvjobs.WrongUse is errors.WrongUse
    every = {kind.__name__ for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert every - {"Exception"} <= set(dir(cvjobs))
