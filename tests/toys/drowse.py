"""Embeds as slowly on every machine: what a cluster does for a while, whatever else the machine does.

It is a driver for tests, which `with_toys` adds to the others.
"""

from __future__ import annotations

from typing import Any

from cvjobs.config import commands

embed = commands.load("embed")
Config = embed.Config


def call(config: Any) -> Any:
    """Embed with a decoder that sleeps."""
    from cvjobs.prediction import run

    return run.run(config, embed.EmbedJob(config), decoder="decoders_e2e:drowse")
