"""What an attempt cost: the engine's own word where there is one, else an estimate that says so, else nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor.adapters.base import Outcome
from executor.attempts.prices import Price, Prices, PriceTableError, load_prices
from shared.contracts.events import AttemptOutcome, Usage

PRICES = Prices([Price(model="big-mini", input=1, output=2), Price(model="big", input=10, output=100, cached=1)])


def spent(model: str | None, **usage: float) -> Usage | None:
    return PRICES.estimated(Outcome(AttemptOutcome.SUCCESS, usage=Usage.model_validate(usage)), model).usage


@pytest.mark.parametrize(
    ("model", "usage", "cost"),
    [
        ("big", {"input_tokens": 1_000_000, "output_tokens": 1_000_000}, 110.0),
        ("vendor/big-1", {"input_tokens": 1_000_000, "cached_input_tokens": 400_000, "output_tokens": 0}, 6.4),
        ("big-mini-2", {"input_tokens": 1_000_000, "cached_input_tokens": 400_000, "output_tokens": 500_000}, 2.0),
        ("big", {"input_tokens": 10, "cached_input_tokens": 90, "output_tokens": 0}, 0.00001),
        ("big", {}, 0.0),
    ],
)
def test_tokens_times_the_first_price_whose_name_is_in_the_models(model: str, usage: dict[str, float], cost: float) -> None:
    found = spent(model, **usage)
    assert found is not None
    assert (found.cost_usd, found.estimated) == (cost, True)


@pytest.mark.parametrize(("model", "own"), [("unheard-of", None), (None, None), ("big", 0.5), ("big", 0.0)])
def test_nothing_is_estimated_without_a_price_or_over_the_engines_own_word(model: str | None, own: float | None) -> None:
    usage = spent(model, input_tokens=1, output_tokens=1, **({} if own is None else {"cost_usd": own}))
    assert usage is not None
    assert (usage.cost_usd, usage.estimated) == (own, None)
    assert PRICES.estimated(Outcome(AttemptOutcome.ERROR), "big").usage is None


def test_an_operators_prices_stand_before_the_shipped(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[[price]]\nmodel = "gpt-5.1"\ninput = 7\noutput = 8\n')
    first = next(each for each in load_prices(file).table if each.model in "gpt-5.1-codex")
    assert (first.input, first.cached) == (7, None)
    assert len(load_prices(file).table) == len(load_prices().table) + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[price]]\nmodel = "x"\ninput = 1\n', "price.0.output"),
        ('[[price]]\nmodel = "x"\ninput = -1\noutput = 1\n', "price.0.input"),
        ('[[price]]\nmodel = "x"\ninput = 1\noutput = 1\ncurrency = "EUR"\n', "price.0.currency"),
        ("[prices]\n", "prices"),
        ("[[price", "prices.toml"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(PriceTableError, match=r"prices\.toml") as refused:
        load_prices(file)
    assert said in str(refused.value)
    with pytest.raises(PriceTableError, match="cannot be read"):
        load_prices(tmp_path / "missing.toml")
