"""A list that leads to a metadata service, in a network namespace where one answers; see ``test_addresses``."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

from websites import Page, web

from cvjobs.sources.listing import list_source


def main() -> None:
    """Serve on the metadata addresses of this namespace, list what leads there, and say who was asked."""
    folder = Path(sys.argv[1])
    secret = {"/latest": Page(b"SECRET")}
    with (
        web(secret, "169.254.169.254", 80),
        web(secret, "100.100.100.200", 80),
        web({"/a": Page(b"", location="http://images.example/latest")}) as site,
    ):
        urllib.request.urlopen("http://images.example/latest").read()
        asked = secret["/latest"].asked
        print("asked without cvjobs:", len(asked))
        asked.clear()
        hosts = ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:a9fe:a9fe]"]
        hosts += ["images.example", "metadata.google.internal", "100.100.100.200", "IMAGES.example"]
        uris = [f"{site}/a", *(f"http://{host}/latest" for host in hosts)]
        (folder / "list.txt").write_text("\n".join(uris))
        codes = list_source(str(folder / "list.txt")).failures["code"].to_pylist()
        print("asked by cvjobs:", len(asked))
        print(f"entries refused: {codes.count('refused')} of {len(uris)}")


if __name__ == "__main__":
    main()
