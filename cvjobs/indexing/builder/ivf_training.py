"""Training an inverted-file index on a sample of the vectors, and coding vectors with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from cvjobs.indexing.faiss_compat import is_same
from cvjobs.indexing.kinds import POINTS, Kind
from cvjobs.indexing.vectors import Embeddings, Floats, Ints

MOST_POINTS = 256  # a list: more make no better centroids
QUERIES = 1000
ROTATIONS = 10
CODE_POINTS = 16_384
SEED = 20_251_122

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class TrainingVectors:
    """Vectors to train on, and queries that are withheld from training: their positions (q,) and vectors (q, dim)."""

    training: Floats
    positions: Ints
    queries: Floats


def sample(embeddings: Embeddings, kind: Kind, budget: int) -> TrainingVectors:
    """Draw vectors uniformly by position, with a fixed seed; those for training fill at most ``budget`` bytes."""
    count = len(embeddings)
    room = budget // (4 * embeddings.dim)
    points = max(min(MOST_POINTS * kind.lists, room), POINTS * kind.lists, CODE_POINTS if kind.name == "pq" else 0)
    held = min(QUERIES, max(1, count // 10))
    drawn = np.random.default_rng(SEED).choice(count, min(count, points + held), replace=False)
    queries, training = np.sort(drawn[:held]), np.sort(drawn[held:])
    return TrainingVectors(
        training=_gather(embeddings, training), positions=queries, queries=_gather(embeddings, queries)
    )


def _gather(embeddings: Embeddings, wanted: Ints) -> Floats:
    found = np.empty((len(wanted), embeddings.dim), np.float32)
    row = 0
    for _, vectors in embeddings.blocks(wanted):
        found[row : row + len(vectors)] = vectors
        row += len(vectors)
    return found


def train(kind: Kind, dim: int, training: Floats) -> Any:
    """Return an empty index of this kind that is trained; its k-means runs on the GPUs that FAISS sees."""
    index = faiss.index_factory(dim, kind.factory, faiss.METRIC_INNER_PRODUCT)
    ivf = faiss.downcast_index(faiss.extract_index_ivf(index))
    if kind.name == "ivf":
        ivf.by_residual = False  # half floats are exact enough as they are, and a list's codes are then its vectors
    else:
        # Enough where candidates are compared once more; the defaults take minutes.
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        rotation.niter, rotation.niter_pq_0, rotation.niter_pq = ROTATIONS, ROTATIONS, 2
        rotation.max_train_points = CODE_POINTS
        ivf.pq.cp.niter, ivf.pq.cp.max_points_per_centroid = ROTATIONS, CODE_POINTS // ivf.pq.ksub
    ivf.cp.min_points_per_centroid = 1  # the queries that are withheld may be missing: no warning
    if faiss.get_num_gpus():
        ivf.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(ivf.d))
    index.train(training)
    ivf.clustering_index = None
    return index


def encode(index: Any, vectors: Floats) -> tuple[Ints, Codes]:
    """Return for each vector its list (n,) and its code (n, code_size)."""
    ivf = faiss.extract_index_ivf(index)
    turned = vectors if ivf.d == index.d and is_same(ivf, index) else _turned(index, vectors)
    lists = np.ascontiguousarray(ivf.quantizer.search(turned, 1)[1][:, 0])
    codes = np.empty((len(vectors), ivf.code_size), np.uint8)
    ivf.encode_vectors(len(vectors), faiss.swig_ptr(turned), faiss.swig_ptr(lists), faiss.swig_ptr(codes))
    return lists, codes


def _turned(index: Any, vectors: Floats) -> Floats:
    chain = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
    for step in chain:
        vectors = step.apply(vectors)
    return vectors
