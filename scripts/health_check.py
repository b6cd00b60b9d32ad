"""Asks a running Runyard whether a provider can be used: the manager, its executors and, with --base-url, the control plane.

It reads what the services say over HTTP; it runs no engine and needs none. No credential's value is ever asked for or shown.

exit status:
  0   ready
  1   runtime_unhealthy: a part is down or broken
  2   environment_not_ready: all parts work, but an engine is not installed or has no credentials
  64  the arguments are wrong
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.arguments import Addresses, Parser, add_stack_arguments, addresses  # noqa: E402
from shared.contracts.providers import Provider, ReadinessCategory, provider_named  # noqa: E402
from shared.errors import RunyardError  # noqa: E402

CALL_SECONDS = 5.0
EXITS = {ReadinessCategory.READY: 0, ReadinessCategory.RUNTIME_UNHEALTHY: 1, ReadinessCategory.ENVIRONMENT_NOT_READY: 2}
Json = dict[str, Any]


class Status(StrEnum):
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. ``of_environment``: what is wrong with it is missing, not broken."""

    name: str
    status: Status
    detail: str
    of_environment: bool = False


class Services:
    """Calls that come back with an answer or the reason why there is none; they never raise."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def get(self, url: str, token: str | None = None) -> tuple[Json | None, str]:
        """The JSON of a 200, else None; and how it went, in words."""
        try:
            answer = self._http.get(url, headers={"authorization": f"Bearer {token}"} if token else {})
            said: Any = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return None, f"no answer from {url} ({type(error).__name__})"
        except ValueError:
            return None, f"{url} did not answer with JSON"
        body = cast(Json, said) if isinstance(said, dict) else {}
        if answer.status_code == 200:
            return body, "ready"
        reasons = body.get("reasons") or [body.get("detail") or body.get("title") or "no reason given"]
        return None, f"HTTP {answer.status_code} from {url}: {'; '.join(map(str, reasons))}"


def checks(services: Services, at: Addresses, provider: Provider, asks_executors: bool = True) -> Iterator[Check]:
    """Every part, callers' side last. What cannot be asked because something before it is down is not asked."""
    said, how = services.get(f"{at.manager_url}/readyz")
    yield Check("manager", Status.PASS if said is not None else Status.FAIL, how)
    if said is not None:
        yield from _fleet(services, at, asks_executors)
        yield _provider(services, at, provider)
    if at.api_url is not None:
        yield _control_plane(services, at)


def _fleet(services: Services, at: Addresses, asks_executors: bool) -> Iterator[Check]:
    """One executor that works is enough to be ready; each other one that does not is a warning."""
    fleet, how = services.get(f"{at.manager_url}/api/executors", at.service_token)
    if fleet is None:
        yield Check("executors", Status.FAIL, how)
        return
    found = [_executor(services if asks_executors else None, member) for member in fleet["items"]]
    working = [check for check in found if check.status is Status.PASS]
    detail = f"{len(working)} of {len(found)} work" if found else "there are none (EXECUTOR_MANAGER_EXECUTORS)"
    yield Check("executors", Status.PASS if working else Status.FAIL, detail)
    for check in found:
        yield Check(check.name, Status.WARN, check.detail) if working and check.status is Status.FAIL else check


def _executor(services: Services | None, member: Json) -> Check:
    """As it says itself (unless it is not asked) and as the manager saw it last: both must be well."""
    state: Json = member.get("state") or {}
    name = f"executor {state.get('executorId') or member['url']}"
    if services is not None:
        said, how = services.get(f"{member['url']}/readyz")
        if said is None:
            return Check(name, Status.FAIL, how)
    if not member["reachable"]:
        return Check(name, Status.FAIL, f"the manager does not reach it: {member.get('reason')}")
    if state.get("draining"):
        return Check(name, Status.FAIL, "draining")
    return Check(name, Status.PASS, f"{state.get('live')} of {state.get('slots')} slots in use")


def _provider(services: Services, at: Addresses, provider: Provider) -> Check:
    name = f"provider {provider}"
    offered, how = services.get(f"{at.manager_url}/api/providers", at.service_token)
    if offered is None:
        return Check(name, Status.FAIL, how)
    known: Json | None = next((each for each in offered["items"] if each["provider"] == provider), None)
    if known is None:
        return Check(name, Status.FAIL, "no executor that can be reached offers it", of_environment=bool(offered["items"]))
    category = ReadinessCategory(known["readinessCategory"])
    if category is not ReadinessCategory.READY:
        reason = known.get("blockingReason") or "no reason given"
        return Check(name, Status.FAIL, reason, category is ReadinessCategory.ENVIRONMENT_NOT_READY)
    version, pinned = known.get("version"), known.get("pinnedVersion")
    if pinned and version != pinned:
        return Check(name, Status.WARN, f"version {version}, tested with {pinned}", of_environment=True)
    return Check(name, Status.PASS, f"version {version}")


def _control_plane(services: Services, at: Addresses) -> Check:
    chain, how = services.get(f"{at.api_url}/api/system/readiness", at.api_key)
    if chain is None:
        return Check("control plane", Status.FAIL, how)
    down = [f"{part}: {chain[part].get('reason') or 'not ready'}" for part in ("database", "manager") if not chain[part]["ready"]]
    return Check("control plane", Status.FAIL if down else Status.PASS, "; ".join(down) or "database and manager answer")


def report(provider: Provider, found: Sequence[Check], strict: bool, at: datetime) -> Json:
    """The verdict over all checks. ``strict``: a warning blocks too."""
    failed = [check for check in found if check.status is Status.FAIL]
    warned = [check for check in found if check.status is Status.WARN]
    blocking = [*failed, *(warned if strict else [])]
    broken = [check for check in blocking if not check.of_environment]
    if not blocking:
        category = ReadinessCategory.READY
    else:
        category = ReadinessCategory.RUNTIME_UNHEALTHY if broken else ReadinessCategory.ENVIRONMENT_NOT_READY
    return {
        "generatedAt": at.isoformat().replace("+00:00", "Z"),
        "provider": provider.value,
        "ready": not blocking,
        "readinessCategory": category.value,
        "blockingReason": "; ".join(f"{check.name}: {check.detail}" for check in broken or blocking) or None,
        "failedChecks": [check.name for check in failed],
        "warnedChecks": [check.name for check in warned],
        "checks": [{name: value for name, value in asdict(check).items() if name != "of_environment"} for check in found],
    }


def main() -> int:
    parser = Parser(__doc__)
    add_stack_arguments(parser)
    parser.add_argument("--provider", default=Provider.CODEX_APP_SERVER.value, help="default: %(default)s")
    parser.add_argument(
        "--manager-url", help="default: EXECUTOR_MANAGER_URLS, else the local stack's; token: RUNYARD_SERVICE_TOKEN"
    )
    parser.add_argument("--no-direct", action="store_true", help="take the manager's word for executors not reachable from here")
    parser.add_argument("--strict", action="store_true", help="a warning is as bad as a failure")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    arguments = parser.parse_args()
    try:
        provider = provider_named(arguments.provider, "--provider")
    except RunyardError as error:
        parser.error(error.detail)
    with httpx.Client(timeout=CALL_SECONDS, trust_env=False) as http:
        found = list(checks(Services(http), addresses(arguments), provider, not arguments.no_direct))
    verdict = report(provider, found, arguments.strict, datetime.now(UTC))
    if arguments.json:
        print(json.dumps(verdict, indent=2))
    else:
        for check in found:
            print(f"{check.status.value:<5} {check.name}: {check.detail}")
        print(f"{verdict['readinessCategory']}" + (f": {verdict['blockingReason']}" if verdict["blockingReason"] else ""))
    return EXITS[ReadinessCategory(verdict["readinessCategory"])]


if __name__ == "__main__":
    sys.exit(main())
