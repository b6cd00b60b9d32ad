"""What of our own environment a service is given. Named, never everything: a shell holds more than a service should know."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from runyard.local_stack.stack import StackError
from shared.contracts.environment import CREDENTIAL_NAMES
from shared.settings import secret_from_file

# The machine: programs, home, language, certificates, proxies.
MACHINE = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV",
    "XDG_CONFIG_HOME", "XDG_STATE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
)  # fmt: skip

# Settings an operator may set for all services at once, and the callers' own variables, which are no setting.
OURS = "RUNYARD_"
NOT_FOR_SERVICES = frozenset({
    "RUNYARD_URL", "RUNYARD_API_KEY", "RUNYARD_ADMIN_KEY", "RUNYARD_ADMIN_KEY_FILE", "RUNYARD_SERVICE_TOKEN",
    "RUNYARD_SERVICE_TOKEN_FILE",
})  # fmt: skip
PROVIDER_MODE = "CONTROL_PLANE_PROVIDER_MODE"


def handed_down(prefixes: Iterable[str], names: Iterable[str] = (), without: str | None = None) -> dict[str, str]:
    """The machine's variables, ours, those with one of ``prefixes`` (but not ``without``), and ``names``, where they are set."""
    wanted = {*MACHINE, *names, PROVIDER_MODE}
    starts = (OURS, *prefixes)

    def goes(name: str) -> bool:
        if name in wanted:
            return True
        return name.startswith(starts) and name not in NOT_FOR_SERVICES and not (without and name.startswith(without))

    return {name: value for name, value in os.environ.items() if goes(name)}


def secret(name: str) -> str | None:
    """A secret of an operator's, from its variable or from the file that ``<name>_FILE`` names. Raises ``StackError``."""
    try:
        return secret_from_file(name) or os.environ.get(name)
    except ValueError as error:
        raise StackError(str(error)) from error


def credentials_present(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What engines could sign in with. Names only: they may be shown, their values never."""
    return [name for name in sorted(CREDENTIAL_NAMES) if environment.get(name)]
