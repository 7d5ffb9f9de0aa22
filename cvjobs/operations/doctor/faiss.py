"""Whether FAISS can be imported and finds what is nearest."""

from __future__ import annotations

from collections.abc import Iterator

from cvjobs.operations.doctor.finding import Finding


def check() -> Iterator[Finding]:
    """Search three vectors for each other."""
    try:
        import faiss
        import numpy as np

        index = faiss.IndexFlatIP(3)
        index.add(np.eye(3, dtype=np.float32))
        _, found = index.search(np.eye(3, dtype=np.float32), 1)
    except Exception as error:  # noqa: BLE001 - a wheel for another processor fails in many ways
        why = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        fix = (
            "Install it anew: python -m pip install --force-reinstall faiss-gpu (on Linux x86-64, elsewhere faiss-cpu)."
        )
        yield Finding.broken("faiss", f"FAISS does not work ({why})", fix)
        return
    if found.ravel().tolist() != [0, 1, 2]:
        yield Finding.broken("faiss", "FAISS finds wrong neighbours", "Install a released FAISS wheel.")
        return
    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    yield Finding.ok("faiss", f"FAISS {faiss.__version__} searches, {f'with {gpus} GPUs' if gpus else 'on the CPU'}")
