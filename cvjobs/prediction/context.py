"""One run of a batch job: its options, what they resolved to, and what was listed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import xxhash

from cvjobs.clusters.allowance import Allowance
from cvjobs.common.fingerprint import libraries
from cvjobs.config.options import BatchOptions
from cvjobs.dataset.parts import Author
from cvjobs.dataset.update import UpdateRequest
from cvjobs.images.decode_children import DecoderServer
from cvjobs.networks.licences import Licence
from cvjobs.prediction.engine.engine import EngineSpec
from cvjobs.prediction.engine.task import Opener
from cvjobs.prediction.placement import Placement, Team
from cvjobs.sources.file_reading import Unreadable
from cvjobs.sources.reader import Source, open_source
from cvjobs.sources.rows import Listing
from cvjobs.storage.storage_options import Options, hidden
from cvjobs.storage.store import Store


class Resolved(Opener, Protocol):
    """What a job's options come to: the step, where it runs, what identifies its results."""

    @property
    def device(self) -> str:
        """Where the step runs: ``cpu``, or the GPUs of the machine (``cuda``)."""

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies the results."""

    def placed(self, placement: Placement) -> Resolved:
        """Return the same where it is to run now, which an earlier run may have resolved for another device."""

    @property
    def title(self) -> str:
        """The model as a person reads it."""

    @property
    def licence(self) -> Licence:
        """The licences of the model, with which the results are marked."""

    def as_dict(self) -> dict[str, Any]:
        """Return what the next run on the same output is given, as JSON types."""


class BatchJob(Protocol):
    """What a driver brings."""

    command: str

    def resolve(self, earlier: dict[str, Any], placement: Placement) -> Resolved:
        """Resolve the model, given the record (JSON) of an earlier run on the same output, empty for a new one."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """One run: its options, what it resolved to and what it found, and what it may still spend.

    ``decoder`` is the ``module:name`` that the decode children run; ``decoder_server`` is theirs on this machine.
    """

    options: BatchOptions
    storage: Options = field(repr=False)
    job: BatchJob
    resolved: Resolved
    store: Store
    listing: Listing
    fingerprint: str
    schema: pa.Schema
    decoder: str
    decoder_server: DecoderServer
    allowance: Allowance
    placement: Placement

    @property
    def source(self) -> Source:
        """Where the bytes of the listed images come from."""
        return open_source(self.listing.root, self.listing.base, self.storage, self.options.confine)

    def hasher(self, rows: pa.Table) -> list[bytes | None]:
        """Return the content hashes of listed images; None where one cannot be read."""
        source = self.source
        stamps = rows["modified"].cast(pa.int64()).to_pylist()

        def one(path: str, size: int, stamp: int) -> bytes | None:
            try:
                return xxhash.xxh3_128_digest(source.read(path, size, stamp))
            except Unreadable:
                return None

        with ThreadPoolExecutor(source.threads) as threads:
            return list(threads.map(one, rows["path"].to_pylist(), rows["bytes"].to_pylist(), stamps))

    @property
    def order(self) -> UpdateRequest:
        """What the dataset layer is asked for."""
        options, resolved = self.options, self.resolved
        return UpdateRequest(
            listing=self.listing,
            schema=self.schema,
            fingerprint=self.fingerprint,
            facts=resolved.facts,
            hasher=self.hasher,
            resolved=resolved.as_dict(),
            config={
                "command": self.job.command,
                "options": {**vars(options), "storage_option": hidden(options.storage_option)},
            },
            libraries=libraries(),
            overwrite=options.overwrite,
            retry_failed=options.retry_failed,
            allow_deletions=options.allow_deletions,
            by_content=options.changed_by == "content",
            limit=options.limit,
        )

    def team(self, images: int) -> Team:
        """Return who computes so many images; raises WrongUse where there is no room for them."""
        return self.placement.team(self.resolved.placed(self.placement).device, images)

    def spec(self, author: Author, epoch: int, out: str, team: Team) -> EngineSpec:
        """Return what each worker is told; how many cores it has, its seat tells."""
        return EngineSpec(
            out=out,
            storage=self.storage,
            author=author,
            epoch=epoch,
            root=self.listing.root,
            base=self.listing.base,
            confine=self.options.confine,
            schema=self.schema,
            opener=self.resolved.placed(self.placement),
            device=team.device,
            cpus=team.seats[0].cpus,
            batch_size=self.options.batch_size or 0,
            max_pixels=self.options.max_pixels,
            decoder=self.decoder,
            apart=team.device != "cpu",
        )
