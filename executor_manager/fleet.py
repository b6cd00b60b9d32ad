"""Who the executors are and how they do: configuration and DNS say where to look, each executor says the rest.

Holds no truth: everything here was heard from an executor a moment ago and may be forgotten at any time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import structlog

from shared.clock import Monotonic, monotonic
from shared.contracts.provider_runs import ExecutorState, FleetMember
from shared.errors import RunyardError
from shared.http import NoAnswerError, ServiceClient

POLL_SECONDS = 2.0
ASK_SECONDS = 2.0
RESOLVE_SECONDS = 2.0
# A proposed attempt that was not started through us by then went another way, or never will.
EXPECT_SECONDS = 2.0
# Who is least loaded is told by figures no older than this, where they can be had so soon.
FRESH_SECONDS = 0.25
log = structlog.get_logger("fleet")

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
Item = TypeVar("Item")


async def by_dns(host: str, port: int) -> list[str]:
    """The host's IPv4 addresses, or its IPv6 ones when it has no other. Raises ``OSError``."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    four = {str(address[0]) for family, *_, address in found if family is socket.AF_INET}
    return sorted(four or {str(address[0]) for *_, address in found})


class ExecutorFleet:
    """The executors behind ``bases``. ``watch`` keeps the picture fresh; ``refresh`` makes it fresh now. Owned: ``close`` it."""

    def __init__(
        self,
        bases: Sequence[str],
        client: ServiceClient,
        resolve: Resolver = by_dns,
        clock: Monotonic = monotonic,
    ) -> None:
        self._bases = [base.rstrip("/") for base in bases]
        self._client = client
        self._resolve = resolve
        self._clock = clock
        self._known: dict[str, list[str]] = {}
        self._members: dict[str, FleetMember] = {}
        self._round: asyncio.Task[None] | None = None
        self._begun = 0
        self._whole = 0  # the last round that came to its end, by its number
        self._asked_at = clock()
        # by executor, by workspace: a state asked for before then does not count the attempt that was proposed there
        self._expected: dict[str, dict[str, float]] = {}
        self.was_asked = False

    @property
    def seen(self) -> list[FleetMember]:
        """The members as they said they were."""
        return list(self._members.values())

    @property
    def members(self) -> list[FleetMember]:
        """The members, with what is on its way to them."""
        return [self._with_expected(member) for member in self._members.values()]

    @property
    def has_guesses(self) -> bool:
        """Whether a fresh look may show less load than ``members`` do."""
        return any(member.reserved for member in self.members)

    def everyone_answers(self) -> bool:
        """False for no executors at all: then nobody said no."""
        return bool(self._members) and all(member.reachable for member in self._members.values())

    def url_of(self, executor_id: str) -> str | None:
        """Where that executor was last seen, also when it is silent or draining now."""
        places = [each for each in self._members.values() if each.state is not None and each.state.executor_id == executor_id]
        return max(places, key=lambda each: each.reachable).url if places else None

    def expect_start(self, executor_id: str, workspace: str) -> None:
        """An attempt is on its way there: count it until the executor's own figure does."""
        self._expected.setdefault(executor_id, {})[workspace] = self._clock() + EXPECT_SECONDS

    def start_answered(self, executor_id: str, workspace: str) -> None:
        """Whatever the answer was: an executor that is asked from now on knows of it."""
        expected = self._expected.get(executor_id, {})
        if workspace in expected:
            expected[workspace] = min(expected[workspace], self._clock())

    def _with_expected(self, member: FleetMember) -> FleetMember:
        expected = self._expected.get(member.state.executor_id) if member.state is not None else None
        reserved = sum(until > self._asked_at for until in expected.values()) if expected else 0
        return member.model_copy(update={"reserved": reserved}) if reserved else member

    async def watch(self) -> None:
        """Ask everyone every ``POLL_SECONDS``, for ever. Owned by the app."""
        while True:
            began = self._clock()
            try:
                await self.refresh()
            except Exception as error:
                log.error("fleet.round_failed", error=type(error).__name__, exc_info=error)
            await asyncio.sleep(max(0.0, POLL_SECONDS - (self._clock() - began)))

    async def refresh(self) -> None:
        """Return after a whole round that began no earlier than this call; callers at the same time share one."""
        before = self._begun
        while self._whole <= before:
            await asyncio.shield(self._shared_round())

    async def freshen(self) -> None:
        """Look again where the figures are old. Waits for nobody: not while an executor is known to be silent, nor for long."""
        if self._clock() - self._asked_at <= FRESH_SECONDS or not self.everyone_answers():
            return
        # the round goes on for those who come next: rounds that each caller gave up would never show anybody anything
        await asyncio.wait((self._shared_round(),), timeout=FRESH_SECONDS)

    async def close(self) -> None:
        """Drop the round that is under way."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait((self._round,))

    def _shared_round(self) -> asyncio.Task[None]:
        """The round under way, or a new one. The fleet's own: who stops waiting does not stop it."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._ask_everyone())
        return self._round

    async def _ask_everyone(self) -> None:
        self._begun += 1
        began = self._clock()
        found = await _all(self._urls(base) for base in self._bases)
        listed = dict.fromkeys(url for urls in found for url in urls)
        # an executor that drains may vanish from DNS while its runs go on: it stays as long as it answers
        leaving = [url for url, member in self._members.items() if url not in listed and member.reachable]
        asked = await _all(self._ask(url) for url in [*listed, *leaving])
        nowhere = [base for base, urls in zip(self._bases, found, strict=True) if not urls]
        present = [member for member in asked if member.url in listed or member.reachable]
        members = {member.url: member for member in _told_apart(present, self._members)}
        members |= {base: FleetMember(url=base, reachable=False, reason="the name does not resolve") for base in nowhere}
        self._tell_changes(members)
        self._members, self._asked_at = members, began
        self._expected = {
            executor_id: left
            for executor_id, expected in self._expected.items()
            if (left := {workspace: until for workspace, until in expected.items() if until > began})
        }
        self._whole = self._begun
        self.was_asked = True

    async def _urls(self, base: str) -> list[str]:
        """The executors behind one base URL; what was known last when the name server does not answer."""
        parts = urlsplit(base)
        if not _may_be_several(parts):
            return [base]
        port = parts.port or 80
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                addresses = await self._resolve(parts.hostname or "", port)
        except (OSError, TimeoutError, UnicodeError):  # the last for what no name server can be asked
            return self._known.get(base, [])
        self._known[base] = [f"http://{f'[{each}]' if ':' in each else each}:{port}{parts.path}" for each in addresses]
        return self._known[base]

    async def _ask(self, url: str) -> FleetMember:
        """One executor's state. A member that answered last time gets a second try before it counts as unreachable."""
        before = self._members.get(url)
        reason = ""
        for _ in range(2 if before is not None and before.reachable else 1):
            try:
                state = await self._client.call("GET", f"{url}/executor", answer=ExecutorState, timeout=ASK_SECONDS)
                return FleetMember(url=url, reachable=True, state=state)
            except (NoAnswerError, RunyardError) as error:
                reason = str(error)
            except Exception as error:  # what nobody foresaw is this executor's trouble and hides no other
                log.error("fleet.ask_failed", url=url, error=type(error).__name__, exc_info=error)
                reason = f"it could not be asked ({type(error).__name__})"
        return FleetMember(url=url, reachable=False, reason=reason, state=before.state if before is not None else None)

    def _tell_changes(self, now: dict[str, FleetMember]) -> None:
        for url in sorted(self._members.keys() | now.keys()):
            old, new = self._members.get(url), now.get(url)
            if new is None:
                log.info("fleet.left", url=url)
            elif old is None or old.reachable != new.reachable or _life(old) != _life(new):
                log.info("fleet.changed", url=url, reachable=new.reachable, reason=new.reason, life=_life(new))


def _told_apart(members: Sequence[FleetMember], before: Mapping[str, FleetMember]) -> list[FleetMember]:
    """Each executor once, in order, at the address it was known at before: it may answer at several.

    Two lives with one id at the same time are two executors with one name: a call for the one must not reach the other, so
    only the one known first is taken for it.
    """

    def was_known(member: FleetMember) -> bool:
        known = before.get(member.url)
        return known is not None and known.reachable and _life(known) == _life(member)

    first: dict[str, FleetMember] = {}
    for member in sorted(members, key=was_known, reverse=True):
        if member.reachable and member.state is not None:
            first.setdefault(member.state.executor_id, member)
    also: dict[str, list[str]] = {}
    kept: list[FleetMember] = []
    for member in members:
        chosen = first[member.state.executor_id] if member.reachable and member.state is not None else member
        if chosen is member:
            kept.append(member)
        elif _life(chosen) == _life(member):
            also.setdefault(chosen.url, []).append(member.url)
        else:
            reason = f"it calls itself {member.state.executor_id if member.state else ''} as {chosen.url} does"
            kept.append(FleetMember(url=member.url, reachable=False, reason=reason))
    return [each.model_copy(update={"also_at": also[each.url]}) if each.url in also else each for each in kept]


def _life(member: FleetMember) -> tuple[str, str] | None:
    return (member.state.executor_id, member.state.instance) if member.state is not None else None


def _may_be_several(parts: SplitResult) -> bool:
    """Only a plain-http host name is looked up: a certificate is for a name, and an address or localhost is one executor."""
    if parts.scheme != "http" or parts.hostname in (None, "localhost"):
        return False
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return True
    return False


async def _all(work: Iterable[Awaitable[Item]]) -> list[Item]:
    """At the same time, in order; each is bounded by itself."""
    return list(await asyncio.gather(*work))
