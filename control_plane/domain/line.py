"""The line of waiting runs: how a run rises while it waits, and how many runs may live at once. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.contracts.providers import provider_named
from shared.errors import RunyardError

# A run that waits is never taken for more urgent than one that is so many priorities above it.
MOST_RISE = 20.0


@dataclass(frozen=True, slots=True)
class Ageing:
    """A waiting run rises by one priority in ``seconds``, by ``most`` in all."""

    seconds: float = 60.0
    most: float = MOST_RISE


# ---- those that wait for one executor ----

FIRST_ASKS_AGAIN_SECONDS = 0.5
LAST_LOOKS_AGAIN_SECONDS = 2.0


def looks_again_in(before: int) -> float:
    """Seconds until a run asks again for the one executor that has its files, with so many runs before it.

    Only the first asks; the others look whether it is their turn.
    """
    return min(FIRST_ASKS_AGAIN_SECONDS * (1 + before), LAST_LOOKS_AGAIN_SECONDS)


# ---- how many may live at once ----

ANY = "*"


@dataclass(frozen=True, slots=True)
class Caps:
    """How many runs of one app, and of one provider, may live at once; ``*`` stands for those not named. None: any number."""

    apps: Mapping[str, int] = field(default_factory=dict[str, int])
    providers: Mapping[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def told(cls, apps: str, providers: str) -> Caps:
        """From ``name=number,…``. Raises ``ValueError`` for what says something else, and for a provider nobody knows."""
        try:
            named = {name if name == ANY else provider_named(name).value: cap for name, cap in _numbers(providers).items()}
        except RunyardError as error:
            raise ValueError(error.detail) from None
        return cls(_numbers(apps), named)

    @property
    def are_set(self) -> bool:
        return bool(self.apps or self.providers)

    def room_of_app(self, app_id: str | None, living: int) -> bool:
        """Whether another one fits beside so many. An operator's runs have no app and no cap."""
        return app_id is None or living < self.apps.get(app_id, self.apps.get(ANY, living + 1))

    def room_of_provider(self, provider: str, living: int) -> bool:
        return living < self.providers.get(provider, self.providers.get(ANY, living + 1))


def _numbers(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, number = (each.strip() for each in part.partition("="))
        if not name or name in found or not (number.isascii() and number.isdigit()) or int(number) < 1:
            raise ValueError(f"{part[:64]!r} is no cap: write name=number, separated by commas, each name once")
        found[name] = int(number)
    return found


@dataclass(frozen=True, slots=True)
class Claimable:
    """A run in the line; ``is_new``: it does not live yet, and so takes a place."""

    run_id: str
    app_id: str | None
    provider: str
    is_new: bool


@dataclass(slots=True)
class Living:
    """How many runs live, by app and by provider."""

    apps: Counter[str | None] = field(default_factory=Counter[str | None])
    providers: Counter[str] = field(default_factory=Counter[str])

    def full_apps(self, caps: Caps) -> list[str]:
        return [app for app, living in self.apps.items() if app is not None and not caps.room_of_app(app, living)]

    def full_providers(self, caps: Caps) -> list[str]:
        return [provider for provider, living in self.providers.items() if not caps.room_of_provider(provider, living)]


def admitted(line: Sequence[Claimable], living: Living, caps: Caps, limit: int) -> list[str]:
    """The first ``limit`` of the line that fit; who does not fit lets others pass. Counts them into ``living``."""
    chosen: list[str] = []
    for run in line:
        if len(chosen) == limit:
            break
        if run.is_new:
            fits = caps.room_of_app(run.app_id, living.apps[run.app_id])
            if not (fits and caps.room_of_provider(run.provider, living.providers[run.provider])):
                continue
            living.apps[run.app_id] += 1
            living.providers[run.provider] += 1
        chosen.append(run.run_id)
    return chosen
