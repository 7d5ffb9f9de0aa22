"""One `cvjobs check` from its data to its page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from cvjobs.common import json_values
from cvjobs.common.errors import WrongUse
from cvjobs.common.progress import Progress, tell
from cvjobs.dataset import contents, sealed_table
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.html.original_links import links
from cvjobs.images.decode_children import DecoderServer
from cvjobs.inspection import decoded_facts, paired_images, problems, truth_files
from cvjobs.inspection.appraisal import Appraisal, CheckedImages, CheckRequest
from cvjobs.inspection.check_page import page
from cvjobs.inspection.data_check import NUMBERS, PAGE, DataCheck
from cvjobs.inspection.decoded_facts import DecodedFacts, FactsRequest
from cvjobs.inspection.object_statistics import split_order
from cvjobs.inspection.problems import Problems
from cvjobs.inspection.truth_files import SplitTruth
from cvjobs.sources import reasons
from cvjobs.sources.left_out import told_failed
from cvjobs.sources.listing import list_source, nothing_found
from cvjobs.sources.reader import Source, open_source
from cvjobs.sources.rows import Listing
from cvjobs.storage.store import Store, open_store
from cvjobs.training.data import labels
from cvjobs.training.data.labels import LabelledImages

NO_CLASSES = ["annotations", "images"]  # folders that are most likely images and the truth of them


def check(request: CheckRequest, decoder_server: DecoderServer, progress: Progress) -> DataCheck:
    """Look at data, leave ``check.json``, ``problems.parquet`` and ``report.html``, and return what was found.

    Raises a CvjobsError with one sentence for what cannot be looked at at all.
    """
    store = open_store(request.out, options=request.storage)
    contents.check(store, contents.CHECK)
    if request.vectors is not None:
        from cvjobs.inspection import vector_neighbours  # FAISS is imported for those who have vectors

        vector_neighbours.check_there(request.vectors, request.storage)
    progress.phase("listing", "listing the images")
    listing = list_source(
        request.data,
        dict(request.storage),
        confine=request.confine,
        exclude=request.exclude,
        links=True,
        columns=("label", "labels", "split"),
    )
    found = Problems()
    labelled, truths = None, []
    request = replace(request, truths=tuple(request.truths) or truth_files.held(request.data))
    if request.truths:
        progress.phase("reading", "reading the truth")
        truths = truth_files.read(request.truths, request.names, found)
        listing = replace(listing, images=paired_images.without_masks(listing, truths))
    else:
        labelled = _labelled(listing, request.val)
    if not listing.images.num_rows:
        raise WrongUse(nothing_found(listing))
    places: list[Ints] = []
    splits: list[str] = []
    if truths:
        places, splits = paired_images.pair(listing.images["path"].to_pylist(), truths, found)
    source = open_source(listing.root, listing.base, dict(request.storage), request.confine)
    facts = _decoded(request, listing, source, decoder_server, progress, found)
    look = CheckedImages(
        request=request,
        listing=listing,
        facts=facts,
        source=source,
        found=found,
        progress=progress,
        decoder_server=decoder_server,
    )
    seen = look.labelled(labelled) if labelled else look.truths(truths, places, splits)
    return _leave(look, store, truths, seen)


def _labelled(listing: Listing, val: float) -> LabelledImages:
    try:
        labelled = labels.label(listing, val)
    except WrongUse as error:
        raise WrongUse(f"{str(error).removesuffix('.')}; a truth of boxes or masks is named with --truth.") from error
    if sorted(name.lower() for name in labelled.classes) == NO_CLASSES:
        tell(
            "The folders images and annotations are taken for classes: if annotations has the truth of the images, "
            "name that folder with --truth."
        )
    return labelled


def _decoded(
    request: CheckRequest,
    listing: Listing,
    source: Source,
    decoder_server: DecoderServer,
    progress: Progress,
    found: Problems,
) -> DecodedFacts:
    """Decode all images, and note those that fail, also while listing, and those in which there is nothing to see."""
    rows = listing.images
    progress.phase("decoding", f"decoding {rows.num_rows:,} images")
    asked = FactsRequest(
        rows=rows, source=source, max_pixels=request.max_pixels, bits=request.bits, truncated=request.truncated
    )
    facts = decoded_facts.decode_all(asked, decoder_server, progress.counting(rows.num_rows))
    failures = listing.failures
    for path, code, detail in zip(*(failures[name].to_pylist() for name in ("path", "code", "detail")), strict=True):
        found.add("failed", path, detail=f"{code}: {detail}")
    failed = [(facts.paths[at], failure) for at, failure in enumerate(facts.failures) if failure is not None]
    for path, failure in sorted(failed, key=lambda pair: pair[0]):
        found.add("failed", path, detail=f"{failure.code}: {failure.detail}")
    for at in np.flatnonzero(facts.looks).tolist():
        found.add("blank", facts.paths[at], detail=facts.look(at))
    progress.phase("comparing", "comparing the images with what is said of them")
    return facts


def _leave(look: CheckedImages, store: Store, truths: Sequence[SplitTruth], seen: Appraisal) -> DataCheck:
    """Write the table, the page and the numbers, each whole, and return what was found."""
    facts, phases = look.facts, look.progress.phases
    images = Counter(split for split, good in zip(seen.splits, facts.good.tolist(), strict=True) if good)
    if look.request.truths == () and "" in images:
        del images[""]  # what has no label is told as a problem
    table: pa.Table = look.found.table()
    decoding = phases.spent().get("decoding", 0.0)
    found = DataCheck(
        data=look.listing.source,
        task=seen.task,
        out=store.place,
        truths=[{"place": one.place, "format": one.truth.format, "split": one.split} for one in truths],
        listed=look.listing.images.num_rows + look.listing.failures.num_rows,
        images={split: images[split] for split in sorted(images, key=split_order)},
        classes=seen.classes,
        figures=seen.figures,
        image_sizes=look.image_sizes,
        problems=look.found.record(),
        left_out=seen.left_out,
        notes=[*_failed(look), *seen.notes, *([facts.dark] if facts.dark else [])],
        seconds=round(phases.seconds, 3),
        images_per_second=round(len(facts.paths) / decoding, 1) if decoding else 0.0,
        table=table,
    )
    original = links(f"{store.place}/{PAGE}", look.listing.root, look.listing.base)
    store.write(problems.FILE, partial(sealed_table.dump, rows=table))
    store.write_bytes(PAGE, page(found, seen.show, original).encode(errors="replace"))
    store.write_bytes(NUMBERS, (json.dumps(json_values.finite(found.as_dict()), indent=1) + "\n").encode())
    return found


def _failed(look: CheckedImages) -> list[str]:
    """Return what failed by reason, with what to do."""
    failures = look.listing.failures
    pairs = list(zip(failures["code"].to_pylist(), failures["path"].to_pylist(), strict=True))
    for path, failure in zip(look.facts.paths, look.facts.failures, strict=True):
        if failure is not None:
            pairs.append((failure.code, path))
    return [line.strip() for line in told_failed(reasons.failed(pairs))]
