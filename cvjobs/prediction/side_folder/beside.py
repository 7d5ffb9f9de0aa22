"""What a run leaves beside its output: the folders that were asked for, brought to its newest snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvjobs.common.formatting import counted, shortened
from cvjobs.common.progress import Progress
from cvjobs.dataset.snapshot_reader import open_newest
from cvjobs.prediction.side_folder import manifest, sync
from cvjobs.prediction.side_folder.mask_files import Masks
from cvjobs.prediction.side_folder.picture_files import DrawnPictures
from cvjobs.prediction.summary import Summary
from cvjobs.storage.storage_options import parse_options
from cvjobs.storage.store import open_store

TOLD = 3  # images without a picture that are named


@dataclass(frozen=True, kw_only=True)
class Accompanied(Summary):
    """What a run did that keeps folders, too; ``masks`` and ``pictures`` count those it wrote, None where not asked.

    ``without_picture`` has the images that could not be read again, with the reason.
    """

    masks: int | None = None
    masks_dir: str | None = None
    pictures: int | None = None
    pictures_dir: str | None = None
    without_picture: dict[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """See ``Summary``; what was not asked for is left out."""
        own = [name for name in vars(self) if name not in vars(Summary) and getattr(self, name) is None]
        return {name: value for name, value in super().as_dict().items() if name not in own}

    def __str__(self) -> str:
        lines = [super().__str__()]
        if self.masks is not None:
            lines.append(f"{self.masks_dir}: {counted(self.masks, 'masks')} written")
        if self.pictures is not None:
            lines.append(f"{self.pictures_dir}: {counted(self.pictures, 'pictures')} written")
        if self.without_picture:
            first = list(self.without_picture.items())[:TOLD]
            named = ", ".join(f"{shortened(path)} ({why})" for path, why in first)
            more = len(self.without_picture) - len(first)
            lines.append(
                f"{counted(len(self.without_picture), 'images have')} no picture: {named}"
                f"{f' and {more:,} more' if more else ''}; the same command tries again"
            )
        return "\n".join(lines)


def check(source: str, out: str, *, masks: str | None = None, images: str | None = None) -> list[Path | None]:
    """Return the folders of masks and pictures, each None where it is not asked for; raises as ``sync.check``."""
    asked = ((manifest.MASKS, masks), (manifest.PICTURES, images))
    return [None if place is None else sync.check(kind, place, source, out) for kind, place in asked]


def complete(
    done: Summary, folders: Sequence[Path | None], storage_options: Sequence[str], max_pixels: int
) -> Accompanied:
    """Bring the folders of ``check`` to the newest snapshot of a run's output; raises as ``sync.complete``."""
    if done.spent:  # of time, too: what is here gets its files from the command that ends by itself
        return Accompanied(**vars(done))
    options = parse_options(storage_options)
    reader = open_newest(open_store(done.out, options=options))
    masks, images = folders
    found: dict[str, Any] = {}
    with Progress("pictures") as progress:
        if masks:
            found = {
                "masks": sync.complete(manifest.MASKS, masks, reader, Masks(reader.task)),
                "masks_dir": str(masks),
            }
        if images:
            maker = DrawnPictures(reader, options, max_pixels)
            found |= {
                "pictures": sync.complete(manifest.PICTURES, images, reader, maker),
                "pictures_dir": str(images),
                "without_picture": dict(sorted(maker.failed.items())),
            }
        done = done.longer(progress.phases.spent())
    return Accompanied(**vars(done), **found)
