"""How ``cvjobs COMMAND --help`` looks: options in named groups; without rich, which takes as long as all the rest."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from cvjobs.config.fields import GENERAL, REQUIRED, SYNONYMS

# The groups in their order. An option's own field names its group (``rich_help_panel``).
GROUPS = (
    REQUIRED,
    "Model, data and size",
    "Search",
    "Objects",
    "Results",
    "Optimizer",
    "Schedule",
    "Loss and imbalance",
    "Augmentation",
    "Averages",
    "Updates and failures",
    "Look first",
    "Machine",
    "Time and money",
    "Cluster and storage",
    GENERAL,
)
WIDEST = 30  # columns of an option; the sentence of a longer one begins on the next line


class Command(TyperCommand):
    """One command, whose help has a section for each group of its options."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what every command line has, then that there are options."""
        pieces = []
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                pieces.append(parameter.metavar or str(parameter.name))
            elif getattr(parameter, "rich_help_panel", None) == REQUIRED:
                value = parameter.metavar or str(parameter.name).upper()
                pieces.append(f"{parameter.opts[0]} {value}")
        return [*pieces, "[OPTIONS]"]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, or show the help at once: Typer imports pydantic, half of the time, to know a flag."""
        before = args[: args.index("--")] if "--" in args else args
        if set(before) & set(ctx.help_option_names):
            print(self.get_help(ctx))
            raise typer.Exit
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        return super().parse_args(ctx, [*(_synonym(word, own) for word in before), *args[len(before) :]])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the groups in the order of ``GROUPS``, all with the same first column."""
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                option, sentence = record
                group = getattr(parameter, "rich_help_panel", None) or GENERAL
                rows.setdefault(group, []).append((option.removesuffix(" <str>"), sentence))
        every = [option for group in rows.values() for option, _ in group]
        width = min(max(map(len, every)), WIDEST)
        for group, found in rows.items():
            if found:
                with formatter.section(group):
                    formatter.write_dl([(option.ljust(width), sentence) for option, sentence in found], WIDEST)


def _synonym(word: str, own: set[str]) -> str:
    """Return a word of a command line, under the name that the command has where it is an option's other name."""
    typed, equals, value = word.partition("=")
    meant = f"--{SYNONYMS.get(typed.removeprefix('--').replace('-', '_'), '').replace('_', '-')}"
    return f"{meant}{equals}{value}" if typed.startswith("--") and typed not in own and meant in own else word
