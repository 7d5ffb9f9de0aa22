"""The image processor of transformers that a repository names: its settings are data, and its tensors torchvision's."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.networks.hf.loading import quiet, transformers
from cvjobs.networks.hf.repository import CONFIG, PROCESSOR, Repository

LARGEST = 16384  # pixels of the shorter side to which images may be resized


def image_processor(repository: Repository) -> Any:
    """Return the library's own image processor with the settings of a repository, whose code is never run.

    Raises:
        WrongUse: it has none, or its settings make no sense.
    """
    if not repository.processor:
        raise WrongUse(
            f"{repository.said} has no {PROCESSOR}, which says how images are prepared: copy that of the model that it "
            "was made from into it."
        )
    library = transformers(repository.name)
    # OneFormer's would fetch a list of names, which it needs for training alone.
    unneeded = {"class_info_file": None} if repository.kind == "oneformer" else {}
    with TemporaryDirectory() as folder, quiet():
        for name, settings in ((CONFIG, repository.config), (PROCESSOR, repository.processor)):
            kept = {key: value for key, value in settings.items() if key != "auto_map"}
            (Path(folder) / name).write_text(json.dumps(kept))
        try:
            return library.AutoImageProcessor.from_pretrained(
                folder, backend="torchvision", local_files_only=True, trust_remote_code=False, **unneeded
            )
        except Exception as error:  # whatever the library trips over in a file that anyone wrote
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise WrongUse(
                f"The {PROCESSOR} of {repository.said} makes no image processor ({why}): choose another model or "
                "revision."
            ) from error
