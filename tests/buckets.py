"""An S3 for the tests: moto's server in a process of its own, and what a test does there as a user would.

Run as a program, with an address of this machine, it prints its port and serves until it is killed; with a second word
it prints each request on stderr.
"""

from __future__ import annotations

import io
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import S3Store

KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDTESTS",
    "AWS_SECRET_ACCESS_KEY": "nobody-may-see-this",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own on the server at ``endpoint``."""

    endpoint: str
    name: str

    @property
    def store(self) -> S3Store:
        return S3Store(self.name, config={"endpoint": self.endpoint}, client_options={"allow_http": True})

    @property
    def options(self) -> list[str]:
        return ["--storage-option", f"endpoint={self.endpoint}"]

    @property
    def settings(self) -> dict[str, str]:
        return {"endpoint": self.endpoint}

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}".rstrip("/")

    def put(self, key: str, content: bytes) -> None:
        obstore.put(self.store, key, content)

    def put_raw(self, key: str, content: bytes) -> None:
        """Make an object whose key obstore refuses."""
        request = urllib.request.Request(f"{self.endpoint}/{self.name}/{key}", content, method="PUT")
        with urllib.request.urlopen(request):
            pass

    def upload(self, folder: Path, prefix: str) -> None:
        """Copy the files below a folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    def read(self, key: str) -> bytes:
        return obstore.get(self.store, key).bytes().to_bytes()

    def delete(self, key: str) -> None:
        obstore.delete(self.store, key)

    def keys(self, prefix: str) -> list[str]:
        return sorted(meta["path"] for batch in obstore.list(self.store, prefix) for meta in batch)

    def table(self, prefix: str) -> pa.Table:
        """The rows of all Parquet files below a prefix, by path, without cvjobs."""
        found = [self.read(key) for key in self.keys(prefix)]
        if not found:
            return pa.table({"path": pa.array([], pa.string())})
        return pa.concat_tables([pq.read_table(io.BytesIO(c)) for c in found]).sort_by("path").combine_chunks()


@contextmanager
def server(host: str = "127.0.0.1", log: Path | None = None) -> Iterator[str]:
    """Run moto's server and yield its endpoint; ``log`` is a file for what it is asked, a line each."""
    words = [sys.executable, __file__, host, *(["log"] if log else [])]
    with (log or Path("/dev/null")).open("ab") as asked:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=asked, text=True)
    try:
        assert process.stdout is not None
        yield f"http://{host}:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def made(endpoint: str, name: str) -> Bucket:
    """Make a bucket."""
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")):
        pass
    return Bucket(endpoint, name)


def main() -> None:
    """Serve."""
    import logging
    import threading

    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are kept, as a real one keeps them
    logging.basicConfig(format="%(message)s")
    logging.getLogger("werkzeug").setLevel(logging.INFO if sys.argv[2:] else logging.ERROR)
    serving = ThreadedMotoServer(sys.argv[1], 0, verbose=False)
    serving.start()
    print(serving.get_host_and_port()[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
