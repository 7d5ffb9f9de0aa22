"""Buckets by URL: which clients to use for them, and what their errors mean to a user."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from cvjobs.common.errors import CvjobsError, StoreUnreachable, WrongUse
from cvjobs.storage.storage_options import CLIENT, STORES, Options, without_secrets, without_users

if TYPE_CHECKING:
    import pyarrow.fs

SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az", "abfs": "az"}
# A store that does not answer is given up on after about half a minute.
PATIENCE = timedelta(seconds=20)
TIMEOUTS = {"connect_timeout": "5s", "read_timeout": "15s", "timeout": "5m"}
RETRIES: dict[str, Any] = {
    "max_retries": 8,
    "retry_timeout": PATIENCE,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=3), "base": 2},
}
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}

Client = S3Store | GCSStore | AzureStore


class Address(NamedTuple):
    """An object, or a prefix of objects: ``scheme`` is s3, gs or az, ``key`` has no slash at its ends."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")


def address(uri: str) -> Address | None:
    """Return the address that a URI names, None where its scheme is no object store's.

    Raises WrongUse for a URI without a bucket.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        return None
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise WrongUse(f"{uri} names no bucket: give {scheme}://BUCKET/PREFIX.")
    return Address(SCHEMES[scheme.lower()], bucket, key.strip("/"))


class Buckets:
    """The clients of a process: one a bucket, made when it is first used; used by many threads at once."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clients: dict[tuple[str, str], Client] = {}
        self._lock = threading.Lock()

    def client(self, place: Address) -> Client:
        """Return the client of a bucket; raises WrongUse where an option makes no sense to it."""
        key = place.scheme, place.bucket
        with self._lock:
            if key not in self._clients:
                self._clients[key] = connect(place, self._options)
            return self._clients[key]


def settings(scheme: str, options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that a scheme's store takes, and those of its HTTP client."""
    own = {key: value for key, value in options.items() if key in STORES[scheme]}
    client = {**TIMEOUTS, **{key: value for key, value in options.items() if key in CLIENT}}
    named = own.get("endpoint") or own.get("base_url")
    if (named or next(filter(None, map(os.environ.get, ENDPOINTS)), "")).startswith("http://"):
        client.setdefault("allow_http", "true")
    return own, client


def connect(place: Address, options: Options) -> Client:
    """Return a client for a bucket; nothing is asked of the store yet."""
    own, client = settings(place.scheme, options)
    shared: dict[str, Any] = {"config": own, "client_options": client, "retry_config": RETRIES}
    try:
        if place.scheme == "gs":
            return GCSStore(place.bucket, **shared)
        if place.scheme == "az":
            return AzureStore(place.bucket, **shared)
        return S3Store(place.bucket, **shared)
    except (BaseError, ValueError) as error:
        if "must be specified" in str(error):
            raise _no_credentials(place) from error
        raise _senseless(place, without_secrets(reason(error), options)) from error


def filesystem(place: Address, options: Options) -> pyarrow.fs.FileSystem:
    """Return a bucket's file system as pyarrow and Ray Data take it; its paths are ``BUCKET/KEY``."""
    import pyarrow.fs
    from obstore.fsspec import FsspecStore

    own, client = settings(place.scheme, options)
    store = FsspecStore(place.scheme, config=own, client_options=client, retry_config=RETRIES)  # type: ignore[call-overload]
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(store))


def reason(error: Exception) -> str:
    """Return what went wrong in a few words, out of what obstore says in many lines."""
    text, _, debug = str(error).partition("\n\nDebug source")
    for pattern, of in (
        (r"<Message>(.*?)</Message>", text),
        (r"status code: (\d+ [A-Za-z ]+)", text),
        (r'message: "(.*?)"', debug),
        (r'error: "(.*?)"', debug),
        (r"source: (TimedOut)", debug),
    ):
        if found := re.search(pattern, of, re.DOTALL):
            return without_users(" ".join(found[1].replace("TimedOut", "no answer").split()).rstrip("."))
    return re.sub(r"^Generic \S+ error: ", "", without_users(" ".join(text.split())))[:200].rstrip(".")


@contextmanager
def understood(place: Address) -> Iterator[None]:
    """Turn a panic of the client, over settings that are in no request's place, into the sentence about them."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _senseless(place, "a request cannot be made with them") from error


def in_words(error: Exception, place: Address) -> CvjobsError:
    """Return the sentence that a user needs about an error of a store, with what it means for the command."""
    text, why = str(error), reason(error)
    bucket = f"{place.scheme}://{place.bucket}"
    if re.search(r"NoSuchBucket|ContainerNotFound|bucket does not exist", text):
        return WrongUse(f"There is no bucket {bucket}: correct its name, or --storage-option endpoint=... .")
    if re.search(r"PermanentRedirect|AuthorizationHeaderMalformed|301 Moved", text):
        return WrongUse(f"The bucket {bucket} is in another region ({why}): give --storage-option region=... .")
    if re.search(r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google|[Cc]redential.* not (found|provided)", text):
        return _no_credentials(place)
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or re.search("status code: 40[13]", text):
        return WrongUse(
            f"{place} refuses access ({why}): set {CREDENTIALS[place.scheme]} to credentials that may use it."
        )
    return StoreUnreachable(
        f"{place} cannot be reached ({why}): when it works again, run the same command to continue."
    )


def _senseless(place: Address, why: str) -> WrongUse:
    return WrongUse(f"The storage options for {place} make no sense ({why}): correct them.")


def _no_credentials(place: Address) -> WrongUse:
    return WrongUse(
        f"There are no credentials for {place.scheme}://{place.bucket}: set {CREDENTIALS[place.scheme]}, "
        "or --storage-option skip_signature=true for a public bucket."
    )
