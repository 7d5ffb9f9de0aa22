"""``--storage-option KEY=VALUE``: the keys, the stores that take them, and the values that are secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cvjobs.common.errors import WrongUse, nearest

Options = Mapping[str, str]

CLIENT = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "read_timeout",
        "timeout",
        "user_agent",
    }
)
# What obstore's stores understand, without the names that only spell another one differently.
STORES: dict[str, frozenset[str]] = {
    "s3": frozenset(
        {
            "access_key_id",
            "checksum_algorithm",
            "conditional_put",
            "disable_tagging",
            "endpoint",
            "imdsv1_fallback",
            "metadata_endpoint",
            "region",
            "request_payer",
            "role_arn",
            "role_session_name",
            "s3_express",
            "secret_access_key",
            "server_side_encryption",
            "session_token",
            "skip_signature",
            "sse_bucket_key_enabled",
            "sse_customer_key_base64",
            "sse_kms_key_id",
            "sts_endpoint",
            "unsigned_payload",
            "virtual_hosted_style_request",
            "web_identity_token_file",
        }
    ),
    "gs": frozenset(
        {
            "application_credentials",
            "base_url",
            "bearer_token",
            "service_account",
            "service_account_key",
            "skip_signature",
        }
    ),
    "az": frozenset(
        {
            "account_key",
            "account_name",
            "authority_host",
            "client_id",
            "client_secret",
            "endpoint",
            "federated_token_file",
            "msi_endpoint",
            "sas_key",
            "skip_signature",
            "tenant_id",
            "token",
            "use_azure_cli",
            "use_emulator",
            "use_fabric_endpoint",
        }
    ),
}
_KNOWN = sorted(CLIENT.union(*STORES.values()))
_SECRET = re.compile(r"key|secret|token|password|credential|account|sas|proxy_url", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/?#\s]*@")  # of a URL: a name and, mostly, a password
_NAME = re.compile(r"[a-z0-9_]{1,40}")
_URLS = frozenset({"authority_host", "base_url", "endpoint", "metadata_endpoint", "msi_endpoint", "sts_endpoint"})
_BLANK = re.compile(r"[\s\x00-\x20\x7f]")
_REGION = re.compile(r"[A-Za-z0-9._-]+")


def parse_options(given: Iterable[str] | Options) -> dict[str, str]:
    """Return options given as ``KEY=VALUE`` texts or as a mapping; raises WrongUse for an unknown key.

    A value is never part of a message: it may be a secret.
    """
    options: dict[str, str] = {}
    pairs = given.items() if isinstance(given, Mapping) else (entry.partition("=")[::2] for entry in given)
    for key, value in pairs:
        if key not in _KNOWN:
            name = key if str(value) and _NAME.fullmatch(key) else "that"  # a value may stand there alone
            raise WrongUse(f"There is no storage option '{name}'{nearest(key, _KNOWN)}: give KEY=VALUE.")
        if not str(value):
            raise WrongUse(f"The storage option '{key}' has no value: give {key}=VALUE.")
        if key == "region" and not _REGION.fullmatch(str(value)):
            raise WrongUse("The storage option 'region' is no name of a region: give one as in region=us-east-1.")
        if key in _URLS and _BLANK.search(str(value)):
            raise WrongUse(f"The storage option '{key}' is no URL, for it holds a blank: correct it.")
        options[key] = str(value)
    return options


def hidden(given: Iterable[str]) -> list[str]:
    """Return ``KEY=VALUE`` texts with the values of whatever may be a secret replaced, to be written down."""
    pairs = (entry.partition("=") for entry in given)
    return [f"{key}=***" if _SECRET.search(key) else f"{key}={without_users(value)}" for key, _, value in pairs]


def without_users(text: str) -> str:
    """Return text whose URLs have ``***`` where a user and a password stand: ``http://***@host``."""
    return _USER.sub("***@", text)


def without_secrets(text: str, options: Options) -> str:
    """Return what a library said of these options without a value that may be a secret."""
    for key, value in options.items():
        if _SECRET.search(key):
            text = text.replace(value, "***").replace(" ".join(value.split()), "***")
    return without_users(text)
