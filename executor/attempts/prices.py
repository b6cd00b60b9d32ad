"""What an attempt cost, where its engine does not say: tokens times list prices, always marked as an estimate."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from executor.adapters.base import Outcome
from shared.contracts.events import Usage

SHIPPED = "prices.toml"
MILLION = 1_000_000


class PriceTableError(ValueError):
    """The table cannot be used; the message names the file and the key."""


class Price(BaseModel):
    """US dollars per million tokens of the models whose name holds ``model``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)

    def of(self, usage: Usage) -> float:
        """Input tokens hold the cached ones; output tokens hold those spent on reasoning."""
        cached = min(usage.cached_input_tokens or 0, usage.input_tokens)
        cached_price = self.input if self.cached is None else self.cached
        spent = (usage.input_tokens - cached) * self.input + cached * cached_price + usage.output_tokens * self.output
        return round(spent / MILLION, 6)


@dataclass(frozen=True, slots=True)
class Prices:
    """Pure once loaded."""

    table: Sequence[Price]

    def estimated(self, outcome: Outcome, model: str | None) -> Outcome:
        """The outcome with a cost, where its engine counted tokens and named no cost, and the model has a price."""
        usage = outcome.usage
        price = next((each for each in self.table if model is not None and each.model in model), None)
        if usage is None or usage.cost_usd is not None or price is None:
            return outcome
        return replace(outcome, usage=usage.model_copy(update={"cost_usd": price.of(usage), "estimated": True}))


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")

    price: list[Price] = Field(default_factory=list[Price])


_TABLE = TypeAdapter(_Table)


def load_prices(override: Path | None = None) -> Prices:
    """The shipped prices, those of the override before them. Raises ``PriceTableError``."""
    own: list[Price] = []
    if override is not None:
        try:
            own = _parse(override.read_text("utf-8"), str(override))
        except (OSError, UnicodeDecodeError) as error:
            raise PriceTableError(f"{override}: cannot be read: {error}") from error
    return Prices((*own, *_parse(files("executor").joinpath(SHIPPED).read_text("utf-8"), SHIPPED)))


def _parse(text: str, where: str) -> list[Price]:
    try:
        return _TABLE.validate_python(tomllib.loads(text)).price
    except tomllib.TOMLDecodeError as error:
        raise PriceTableError(f"{where}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise PriceTableError(f"{where}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
