"""How much of a run goes into what follows the network: NMS, class maps, PNG, columns.

python benchmarks/post.py detect|segment SOURCE OUT --model NAME --weights FILE

Looks at the model threads a hundred times a second; all that is neither inside a module of torch nor drawing its
input counts, so it is rather too much than too little.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import cvjobs

EVERY = 0.01
DRAWING = "draw"


def main() -> None:
    """Run the command in this process and print the share as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["detect", "segment"])
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--conf", type=float)
    options = parser.parse_args()
    counts, ended = [0, 0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(counts, ended))
    watcher.start()
    try:
        function = getattr(cvjobs, options.task)
        more = {} if options.conf is None else {"conf": options.conf}
        summary = function(options.source, options.out, model=options.model, weights=options.weights, **more).as_dict()
    finally:
        ended.set()
        watcher.join()
    after, all_ = counts
    print(json.dumps({**summary, "post": after / max(all_, 1), "samples": all_}))


def _watch(counts: list[int], ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        frames = sys._current_frames()
        for thread in threading.enumerate():
            if thread.name != "model" or thread.ident not in frames:
                continue
            code = list(_code(frames[thread.ident]))
            if not any(function == "_compute" for _, function in code):
                continue
            counts[1] += 1
            counts[0] += not any(
                function == DRAWING or (file == "module" and function == "_call_impl") for file, function in code
            )


def _code(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    while frame is not None:
        yield Path(frame.f_code.co_filename).stem, frame.f_code.co_name
        frame = frame.f_back


if __name__ == "__main__":
    main()
