"""What is used of other libraries without their promise: each part does here what the module named ``..._compat`` says.

A failure names the library's version and those that were known to work: the module has to follow the library.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from cvjobs.clusters import ray_compat
from cvjobs.indexing import faiss_compat
from cvjobs.training import fake_tensor_compat, foreach_compat

ROOT = Path(__file__).parent.parent
MODULES = (ray_compat, faiss_compat, fake_tensor_compat, foreach_compat)
DIM, LISTS, ROWS = 16, 4, 300
Floats = npt.NDArray[np.float32]


def changed(module: ModuleType, what: str) -> str:
    """Return what a failure says."""
    versions: dict[str, tuple[str, ...]] = module.VERSIONS
    ((library, known),) = versions.items()
    installed = faiss.__version__ if library == "faiss" else importlib.metadata.version(library)
    return f"{library} {installed}, other than {', '.join(known)}, {what}: mend {module.__file__}"


def vectors(count: int) -> Floats:
    drawn = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def test_every_module_names_the_versions_it_holds_for() -> None:
    files = {path.stem for path in (ROOT / "cvjobs").rglob("*_compat.py")}
    assert files == {module.__name__.rpartition(".")[2] for module in MODULES}
    for module in MODULES:
        ((library, known),) = module.VERSIONS.items()
        assert library in ("faiss", "ray", "torch")
        assert all(version.count(".") == 1 for version in known)


@pytest.mark.parametrize("count", [0, 1, ROWS])
def test_a_flat_index_begins_with_the_header(tmp_path: Path, count: int) -> None:
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors(count))
    file = tmp_path / "flat.faiss"
    faiss.write_index(index, str(file))
    ours = faiss_compat.flat_header(DIM, count) + vectors(count).tobytes()
    assert ours == file.read_bytes(), changed(faiss_compat, "writes another file of an IndexFlatIP")


def trained(factory: str) -> faiss.Index:
    """Return an index of inverted lists that has no vectors yet."""
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    faiss.extract_index_ivf(index).cp.min_points_per_centroid = 1
    index.train(vectors(ROWS))
    return index


def written(index: faiss.Index, file: Path) -> npt.NDArray[np.int64]:
    """Write the lists of an index to a file, each list's codes and then its ids; return their lengths."""
    ivf = faiss.extract_index_ivf(index)
    counts, content = [], io.BytesIO()
    for number in range(ivf.nlist):
        length = ivf.invlists.list_size(number)
        counts.append(length)
        if length:
            content.write(faiss.rev_swig_ptr(ivf.invlists.get_codes(number), length * ivf.code_size).tobytes())
            content.write(faiss.rev_swig_ptr(ivf.invlists.get_ids(number), length).tobytes())
    file.write_bytes(content.getvalue())
    return np.asarray(counts, np.int64)


def read(file: Path) -> faiss.Index:
    return faiss.read_index(str(file), faiss.IO_FLAG_SKIP_IVF_DATA | faiss.IO_FLAG_READ_ONLY)


@pytest.mark.parametrize("factory", [f"IVF{LISTS},SQfp16", f"PCA8,IVF{LISTS},PQ4x4np"])
def test_lists_in_a_file_beside_are_found_again(tmp_path: Path, factory: str) -> None:
    index = trained(factory)
    full = faiss.clone_index(index)
    full.add(vectors(ROWS))
    counts = written(full, tmp_path / "lists")
    assert counts.min() > 0
    faiss_compat.name_lists(index, counts, "lists", (tmp_path / "lists").stat().st_size)
    faiss.write_index(index, str(tmp_path / "index"))
    again = read(tmp_path / "index")
    faiss_compat.map_lists(again, str(tmp_path / "lists"))
    what = changed(faiss_compat, "keeps lists in a file in another form")
    assert again.ntotal == ROWS, what
    for one in (full, again):
        faiss.extract_index_ivf(one).nprobe = LISTS
    expected, found = full.search(vectors(20), 5), again.search(vectors(20), 5)
    assert np.array_equal(expected[1], found[1]), what
    assert np.array_equal(expected[0], found[0]), what


def test_an_index_without_its_lists_gets_empty_ones(tmp_path: Path) -> None:
    index = trained(f"IVF{LISTS},Flat")
    faiss_compat.name_lists(index, np.full(LISTS, 3, np.int64), "nowhere", LISTS * 3 * (4 * DIM + 8))
    faiss.write_index(index, str(tmp_path / "index"))
    empty = read(tmp_path / "index")
    faiss_compat.empty_lists(empty)
    what = changed(faiss_compat, "does not take other lists")
    assert empty.ntotal == 0, what
    empty.add_with_ids(vectors(ROWS), np.arange(1000, 1000 + ROWS))
    faiss.extract_index_ivf(empty).nprobe = LISTS
    assert empty.search(vectors(9), 1)[1].ravel().tolist() == list(range(1000, 1009)), what


def test_two_views_of_an_index_are_the_same() -> None:
    plain, turned = trained(f"IVF{LISTS},Flat"), trained(f"PCA8,IVF{LISTS},PQ4x4np")
    what = changed(faiss_compat, "compares its objects in another way")
    assert faiss_compat.is_same(faiss.extract_index_ivf(plain), plain), what
    assert not faiss_compat.is_same(faiss.extract_index_ivf(turned), turned), what


def test_ray_prints_of_its_workers_where_it_may() -> None:
    import ray
    from ray._private import worker

    data: dict[str, Any] = {
        "ip": "10.0.0.1",
        "pid": "raylet",
        "lines": ["a machine was lost"],
        "is_err": False,
        "job": "01000000",
    }
    what = changed(ray_compat, "prints what it may not, or does not print")
    try:
        for may in (False, True):
            ray_compat.let_print(ray, may)
            file = io.StringIO()
            worker.print_worker_logs(data, file)
            assert ("a machine was lost" in file.getvalue()) == may, what
    finally:
        ray_compat.let_print(ray, True)


def test_ray_takes_this_machine_for_one_that_nobody_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import worker

    services, constants = (importlib.import_module(f"ray._private.{name}") for name in ("services", "ray_constants"))
    what = changed(ray_compat, "takes an address that others reach")
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda _: "10.0.0.1")  # a way to the world
    monkeypatch.setattr(worker, "_global_node", None)
    before = dict(os.environ)
    assert services.get_node_ip_address() == "10.0.0.1", what
    with ray_compat.on_loopback(ray):
        assert services.get_node_ip_address() == services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1", what
        # What it starts reads this.
        assert not constants.env_bool(constants.ENABLE_RAY_CLUSTERS_ENV_VAR, True), what
    assert services.get_node_ip_address() == services.resolve_ip_for_localhost("127.0.0.1") == "10.0.0.1"
    assert dict(os.environ) == before


def test_fake_tensors_have_shapes_and_storages_but_no_numbers() -> None:
    mode = fake_tensor_compat.fake_mode()
    weight = mode.from_tensor(torch.ones(1 << 10, 3))
    what = changed(fake_tensor_compat, "has other tensors without numbers")
    with mode:
        made = torch.empty(1 << 20, 1 << 10)  # 4 GB, were there numbers
        product = nn.functional.linear(made, weight.t())
        assert (product.shape, product.dtype) == ((1 << 20, 3), torch.float32), what
        assert product.untyped_storage().nbytes() == 4 * 3 << 20, what
    assert type(product).__name__ == "FakeTensor", what
    number = fake_tensor_compat.storage_number
    assert number(made) == number(made.view(1 << 10, 1 << 20)) == number(made[:5]), what
    assert len({number(made), number(product), number(weight)}) == 3, what
    plain = torch.ones(4)
    assert number(plain) == number(plain[1:]) != number(torch.ones(4)), what


def test_many_tensors_move_at_once_as_each_alone() -> None:
    drawn = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=drawn) for shape in ((3,), (4, 5), (1,))]
    ends = [torch.randn(tensor.shape, generator=drawn) for tensor in tensors]
    expected = [torch.lerp(tensor, end, 0.3) for tensor, end in zip(tensors, ends, strict=True)]
    foreach_compat.lerp(tensors, ends, 0.3)
    what = changed(foreach_compat, "has no such function of many tensors")
    assert all(map(torch.equal, tensors, expected)), what
