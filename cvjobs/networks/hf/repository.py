"""A repository of the Hugging Face hub, in its cache on this machine or fetched into it, or a folder of the same kind.

Only settings (JSON) and safetensors are read: code that a repository brings is never run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from cvjobs.common.errors import WrongUse
from cvjobs.networks import weights as files
from cvjobs.networks.weights import Weights

CONFIG, PROCESSOR, MODEL = "config.json", "preprocessor_config.json", "model.safetensors"
_PROCESSORS = "processor_config.json"  # of a model that takes texts, too: newer ones have all in it
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_INDEX = f"{MODEL}.index.json"  # of a model in several files
# OSError and the HTTP client's own error: which client it is differs between versions of the hub's library.
_UNREACHABLE = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)


@dataclass(frozen=True)
class Repository:
    """Where the files of a model are: a ``hub`` name with its ``revision``, or a ``folder`` of one's own.

    ``name`` is the model's full name, such as ``hf/PekingU/rtdetr_r50vd``.
    """

    name: str
    hub: str = ""
    revision: str = ""
    folder: Path | None = None

    @property
    def said(self) -> str:
        """What sentences call it: the folder of one's own, else the name."""
        return str(self.folder or self.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings of the model; raises WrongUse where there are none, or they make no sense."""
        return self._json(CONFIG, needed=True)

    @cached_property
    def processor(self) -> dict[str, Any]:
        """The settings of its image processor; empty where the repository has none."""
        own = self._json(PROCESSOR, needed=False)
        nested = {} if own else self._json(_PROCESSORS, needed=False).get("image_processor")
        return own or (nested if isinstance(nested, dict) else {})

    @property
    def kind(self) -> str:
        """What transformers calls the architecture, such as ``rt_detr``; empty where the settings do not say."""
        return str(self.config.get("model_type") or "")

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the settings, which change a model's numbers as its weights do."""
        both = json.dumps([self.config, self.processor], sort_keys=True)
        return hashlib.sha256(both.encode()).hexdigest()

    @property
    def beside(self) -> tuple[str, ...]:
        """The files that change the model beside that of its weights, also some that are not there yet.

        Of a name on the hub the one that says which commit its revision is, of weights in several files each of them.
        """
        if self.folder is not None:
            settings = [self.folder / name for name in (CONFIG, PROCESSOR, _PROCESSORS)]
            return tuple(map(str, [*settings, *sorted(self.folder.glob("*-of-*.safetensors"))]))
        cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
        return (str(cache / f"models--{self.hub.replace('/', '--')}" / "refs" / (self.revision or "main")),)

    def weights(self, chosen: str) -> Weights:
        """Return the weights that ``pretrained``, ``random`` or the path of a file stand for; raises WrongUse."""
        if chosen == "random":
            return files.RANDOM
        return self._published() if chosen == "pretrained" else files.given(chosen)

    def shards(self, weights: Weights) -> list[Path]:
        """Return the files of safetensors that weights are in."""
        assert weights.file is not None
        if weights.file.name != _INDEX:
            return [weights.file]
        named = _parsed(weights.file.read_bytes(), weights.file).get("weight_map")
        names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
        if not names or any(not name.endswith(".safetensors") or "/" in name for name in names):
            raise WrongUse(f"The file {weights.file} names no files of weights beside it: copy or download it again.")
        return [self._needed(name) for name in names]

    def file(self, name: str) -> Path | None:
        """Return a file of the repository on this machine, None where it has none; raises WrongUse out of reach."""
        if self.folder is not None:
            place = self.folder / name
            return place if place.is_file() else None
        version = self.revision or None
        cached = huggingface_hub.try_to_load_from_cache(self.hub, name, revision=version)
        if isinstance(cached, str):
            return Path(cached)
        if cached is not None:  # known not to exist
            return None
        url = huggingface_hub.hf_hub_url(self.hub, name, revision=version)
        try:
            # Asks once: without a network the download itself would ask six times, for 24 s.
            huggingface_hub.get_hf_file_metadata(url, timeout=files.TIMEOUT)
            return Path(huggingface_hub.hf_hub_download(self.hub, name, revision=version))
        except GatedRepoError:
            raise WrongUse(
                f"The repository {self.hub} is given to those who accept its terms: do so at "
                f"{url.partition('/resolve/')[0]}, and log in with `hf auth login`."
            ) from None
        except _UNREACHABLE as error:  # among them the one that says that it is not in the cache
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                return None
            cache = huggingface_hub.constants.HF_HUB_CACHE
            folder = "there is no such folder, " if self.name.partition("/")[2].partition("@")[0] == self.hub else ""
            absent = f"{folder}{name} of the repository {self.hub} is not in {cache}"
            remedy = "fetch the repository where there is a network, then name its folder as hf/FOLDER"
            raise files.missing(self.name, absent, url, error, remedy) from None

    def _needed(self, name: str) -> Path:
        found = self.file(name)
        if found is None:
            raise WrongUse(f"{self.said} has no {name}: choose a model of transformers with safetensors.")
        return found

    def _json(self, name: str, *, needed: bool) -> dict[str, Any]:
        place = self._needed(name) if needed else self.file(name)
        return _parsed(place.read_bytes(), place) if place else {}

    def _published(self) -> Weights:
        label = self.folder.name if self.folder else self.revision or "main"
        one = self.file(MODEL)
        if one is not None:
            return files.from_file(one, label)
        index = self.file(_INDEX)
        if index is None:
            raise WrongUse(
                f"{self.said} has no {MODEL}: convert its weights to safetensors, or name a file with --weights FILE."
            )
        digest = hashlib.sha256()
        for shard in self.shards(Weights(label, index, "")):
            digest.update(files.from_file(shard).sha256.encode())
        return Weights(label, index, digest.hexdigest())


def opened(model: str, hub: str = "") -> Repository:
    """Return the repository of a model by its name without the family: ``OWNER/NAME[@REVISION]``, or a folder.

    ``hub`` is the repository of a short name.

    Raises:
        WrongUse: it is no such name, or a folder without settings.
    """
    full = f"hf/{model}"
    folder = Path(os.path.expanduser(model))
    if not hub and folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise WrongUse(f"The folder {folder} has no {CONFIG}: name one that transformers' save_pretrained made.")
        return Repository(f"hf/{folder.resolve().name}", folder=folder)
    name, _, revision = (hub or model).partition("@")
    if not _HUB_NAME.fullmatch(name) or not _allowed(name):
        raise WrongUse(
            f"There is no model {full}: write hf/OWNER/NAME as on the Hugging Face hub, hf/FOLDER, or a name that "
            "`cvjobs models` lists."
        )
    return Repository(full, hub=name, revision=revision)


def _allowed(name: str) -> bool:
    """Whether the hub has such names: of at most 96 characters, without two hyphens in a row and so on."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _parsed(content: bytes, place: Path) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WrongUse(f"The file {place} holds no JSON object: copy or download it again.")
    return found
