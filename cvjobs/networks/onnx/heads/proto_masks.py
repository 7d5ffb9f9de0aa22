"""Masks that are sums of a model's prototypes, as of YOLO-seg: cut to their boxes, in cells of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from cvjobs.networks.detection.nms import Candidates
from cvjobs.networks.onnx.heads.proposals import Outputs, Size, check, named

KIND = "protos"
Place = tuple[int, int, int, int]  # top, left, height and width in pixels of the input


def features(outputs: Outputs, *, channels_first: bool) -> dict[str, Tensor]:
    """Return what ``masks`` needs: ``coefficients`` (B, N, P) and ``protos`` (B, P, h, w).

    Args:
        outputs: ``boxes`` (B, N, row), or with ``channels_first`` (B, row, N), whose rows end with P coefficients, and
            ``protos`` (B, P, h, w).
        channels_first: whether rows are columns.

    Raises:
        WrongUse: the outputs have other shapes.
    """
    (name, rows), (proto_name, protos), *_ = named(outputs, KIND, "boxes (B, N, row)", "protos (B, P, h, w)")
    check(proto_name, protos, KIND, "protos (B, P, h, w)", protos.dim() == 4)
    right = rows.dim() == 3 and len(rows) == len(protos)
    rows = rows.transpose(1, 2) if channels_first and right else rows
    least = 4 + protos.shape[1]
    wanted = f"(B, N, at least {least})" if not channels_first else f"(B, at least {least}, N)"
    check(name, rows, KIND, wanted, right and rows.shape[2] >= least)
    return {"coefficients": rows[..., -protos.shape[1] :], "protos": protos}


def masks(found: dict[str, Tensor], kept: Sequence[Candidates], places: Sequence[Place], size: Size) -> Tensor:
    """Return the masks (sum of N, h, w) float32 in cells of each image: above 0 on the object, not beyond its box.

    Near the edge of its box what is above 0 falls with the distance to it, so that what is interpolated between two
    cells passes 0 at the edge.

    Args:
        found: what ``features`` returned.
        kept: the candidates of each image, whose ``query`` are rows of the coefficients.
        places: where each image is in the input.
        size: the input's (height, width) in pixels.
    """
    protos = found["protos"]
    each = []
    for image, (some, place) in enumerate(zip(kept, places, strict=True)):
        assert some.query is not None
        own = of_place(protos[image], place, size)
        values = torch.einsum("np,phw->nhw", found["coefficients"][image, some.query], own)
        inside = _inside(some.boxes, place, (own.shape[1], own.shape[2]))
        each.append(torch.where(values > 0, values * inside.clamp(-1, 1), values))
    return torch.cat(each)


def of_place(protos: Tensor, place: Place, size: Size) -> Tensor:
    """Return prototypes or masks (P, h, w) of the input as those of an image in it, by bilinear interpolation."""
    top, left, height, width = place
    if (top, left, height, width) == (0, 0, *size):
        return protos
    y = (top + (torch.arange(protos.shape[1], device=protos.device) + 0.5) * height / protos.shape[1]) / size[0]
    x = (left + (torch.arange(protos.shape[2], device=protos.device) + 0.5) * width / protos.shape[2]) / size[1]
    spots = torch.stack(torch.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")[::-1], -1)
    return grid_sample(protos[None], spots[None], mode="bilinear", padding_mode="border", align_corners=False)[0]


def _inside(boxes: Tensor, place: Place, cells: Size) -> Tensor:
    """Return (N, h, w) how far in cells each cell's middle is inside of a box; below 0 what is outside."""
    top, left, height, width = place
    y = (torch.arange(cells[0], device=boxes.device) + 0.5)[None, :, None]
    x = (torch.arange(cells[1], device=boxes.device) + 0.5)[None, None, :]
    scale = boxes.new_tensor([cells[1] / width, cells[0] / height] * 2)
    x0, y0, x1, y1 = ((boxes - boxes.new_tensor([left, top, left, top])) * scale)[:, :, None, None].unbind(1)
    across, down = torch.minimum(x - x0, x1 - x), torch.minimum(y - y0, y1 - y)
    return torch.minimum(across, down)
