"""`--format safetensors`: the weights by the names that the model's own module has, with metadata, and a seal."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save

from cvjobs.common.errors import JobFailed
from cvjobs.networks import sealed_model
from cvjobs.networks import weights as files
from cvjobs.training.portable.portable_model import ELSE, PortableModel


def write(model: PortableModel, path: Path) -> None:
    """Write the file."""
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.tensors.items()}
    path.write_bytes(sealed_model.seal(save(tensors, model.metadata())))


def check(model: PortableModel, path: Path) -> float:
    """Return 0 where all tensors are read again to the last bit; raises JobFailed where one is not."""
    found = files.state(files.from_file(path))
    same = found.keys() == model.tensors.keys()
    if not same or not all(found[name].equal(tensor) for name, tensor in model.tensors.items()):
        raise JobFailed(f"The weights of {model.run} are not read again as they are: {ELSE}")
    return 0.0
