"""The variables of an engine's environment, by who may set them: a request, an app, an operator, or only we.

Never a value; what an engine gets in the end is put together at its executor.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import WithJsonSchema

from shared.contracts.credentials import CREDENTIALS

# Variables that hold credentials or say where they are sent: set by an app or on the executor, never by a request.
CREDENTIAL_NAMES: frozenset[str] = frozenset(name for each in CREDENTIALS.values() for name in each.names)

# Set by us for every engine; a caller who could set them would leave its workspace, shed its marks, or put code of its own
# into the engine, where no engine mode applies.
RESERVED_NAMES: frozenset[str] = frozenset({"HOME", "TMPDIR"})
RESERVED_PREFIXES = ("RUNYARD_", "LD_")

# Variables that load code into an engine or send its traffic, and with it its credentials, elsewhere: an operator's to set.
REDIRECTING_NAMES: frozenset[str] = frozenset({
    "ALL_PROXY", "BASH_ENV", "HTTPS_PROXY", "HTTP_PROXY", "NODE_EXTRA_CA_CERTS", "NODE_OPTIONS", "NODE_TLS_REJECT_UNAUTHORIZED",
    "PYTHONSTARTUP", "SSL_CERT_DIR", "SSL_CERT_FILE",
})  # fmt: skip


def may_be_set(name: str, value: str) -> bool:
    """Whether a caller may put this variable into an engine's environment."""
    ours = name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES)
    return bool(name) and not ours and "=" not in name and "\0" not in name + value


def _told(*refused: str) -> WithJsonSchema:
    """``may_be_set`` in the words of JSON Schema; a test holds the two together."""
    never = "|".join([*(f"{prefix}.*" for prefix in RESERVED_PREFIXES), *sorted(RESERVED_NAMES), *refused])
    names = {"pattern": f"^(?!(?:{never})$)[^=\\x00]+$"}
    return WithJsonSchema({"type": "object", "propertyNames": names, "additionalProperties": {"type": "string"}})


# Variables for an engine: those a request may set, and those an app may.
RequestEnv = Annotated[dict[str, str], _told(*sorted(CREDENTIAL_NAMES))]
CredentialEnv = Annotated[dict[str, str], _told()]
