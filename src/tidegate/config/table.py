"""What tables of all files share: an unknown key is an error, names, paths, dollars, secrets and certificates."""

from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate.core.model import ANYWHERE, LOCAL

# Of a pattern: to Python, `$` alone is also before a newline at the end, and JSON schemas have nothing else.
END = r"$(?!\n)"
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}" + END  # endpoint, site and class names become metric labels and header values
RESERVED = (ANYWHERE, LOCAL)  # residency gives these words a meaning of their own


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file. An unknown key is an error: a misspelt limit is no limit."""


Text = Annotated[str, Meta(max_length=4096)]  # the longest path Linux takes
Usd = Annotated[float, Meta(ge=0, le=1000)]  # a thousand dollars for one request is a slip of the keyboard


class SecretTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a secret stands. One of the two; the secret itself never stands in this file."""

    env: Annotated[str, Meta(max_length=128, description="Environment variable that holds it.")] = ""
    file: Annotated[Text, Meta(description="File that holds it, relative to this one, not readable by everybody.")] = ""


class TlsTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How we prove who we are. TLS 1.2 is the least that is spoken; the files are read at the start and at each reload,
    so that renewed certificates need no restart."""

    cert: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File of the certificate in PEM, with those between it and its authority, relative to this "
            "one. It has no default: nobody can make one up.",
        ),
    ]
    key: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File of its private key in PEM, without a password, not readable by everybody. It has no "
            "default, as the certificate has none.",
        ),
    ]


class MutualTlsTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How we prove who we are, and know the others. TLS 1.3 alone is spoken; the files are read at the start."""

    cert: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File of the certificate in PEM, relative to this one, with our name among its DNS names. It "
            "has no default: nobody can make one up.",
        ),
    ]
    key: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File of its private key in PEM, without a password, not readable by everybody. No default, as "
            "above.",
        ),
    ]
    ca: Annotated[
        Text,
        Meta(
            min_length=1,
            description="File of the authority's certificate in PEM: whoever shows one of its certificates may "
            "connect, so it should be one of your own that signs for nobody else. No default, as above.",
        ),
    ]
