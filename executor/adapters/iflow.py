"""iFlow CLI over ACP. Its vendor closed it and took its package away: it is never installed, only its transport is tested."""

from __future__ import annotations

from executor.adapters.acp import errors as acp_errors
from executor.adapters.acp import settings as acp_settings
from executor.adapters.acp.conversation import AcpConversation
from executor.adapters.acp.profile import AcpProfile, UsageFrom
from executor.adapters.acp.protocol import RpcError
from executor.adapters.acp.settings import AcpSetup
from executor.adapters.base import Command, StartRequest
from executor.adapters.engine_modes import words
from executor.adapters.options import base_url_of
from shared.contracts.credentials import CREDENTIALS
from shared.contracts.installs import INSTALLS
from shared.contracts.providers import Capabilities, Provider
from shared.errors import ErrorCode, RunyardError

ENGINE = "iflow-cli"
KEY, BASE_URL = "IFLOW_API_KEY", "IFLOW_BASE_URL"


def error_code(error: RpcError) -> ErrorCode:
    return acp_errors.code_of(error, error.code if 400 <= error.code < 600 else None)


PROFILE = AcpProfile(
    engine=ENGINE,
    modes=words(lambda row: row.iflow),
    usage=UsageFrom.QUOTA,
    error_code=error_code,
)


class IflowAdapter:
    provider = Provider.IFLOW_CLI
    capabilities = Capabilities()  # nothing that a real engine has shown
    install = INSTALLS[Provider.IFLOW_CLI]
    credentials = CREDENTIALS[Provider.IFLOW_CLI]

    def start(self, request: StartRequest) -> AcpConversation:
        return AcpConversation(PROFILE, _setup(request), request, None)

    def resume(self, request: StartRequest, session: str) -> AcpConversation:
        return AcpConversation(PROFILE, _setup(request), request, session)


def _setup(request: StartRequest) -> AcpSetup:
    """Signs in over ACP. Raises ``RunyardError``: ``auth_missing``, ``invalid_request``, ``capability_unavailable``."""
    acp_settings.refuse_schema(request, ENGINE)
    acp_settings.tools_off(request, {}, ENGINE)
    key = acp_settings.key_in(request, (KEY,))
    if key is None:
        raise RunyardError(ErrorCode.AUTH_MISSING, f"{ENGINE} needs {KEY}")
    told = {"apiKey": key, "baseUrl": base_url_of(request, BASE_URL), "modelName": request.model}
    sign_in = {"methodId": "iflow", "methodInfo": {name: value for name, value in told.items() if value is not None}}
    command = Command(argv=(request.executable, "--experimental-acp"))
    return AcpSetup(command, acp_settings.mcp_servers(request), sign_in)
