from __future__ import annotations

import json
import random

import pytest

from executor.events.redaction import Redactor, SpokenText, secrets_in
from shared.contracts.events import (
    MessageCompleted,
    MessageDelta,
    Payload,
    ReasoningCompleted,
    ReasoningDelta,
    Usage,
    UsageUpdated,
)

SECRETS = ("sk-secret-value", 'with"quote\\and\nline', "sk-secret-value-longer", "ähnlich-geheim", "value-longer-overlap")
TEXT = (
    b"plain sk-secret-value then sk-secret-value-longer and " + json.dumps(SECRETS[1]).encode() + b" \xc3\xa4 "
    + json.dumps(SECRETS[3]).encode() + b" " + SECRETS[3].encode() + b" sk-secret-value-longer-overlap sk-secret sk-"
)  # fmt: skip


def redacted(chunks: list[bytes], secrets: tuple[str, ...] = SECRETS) -> bytes:
    redactor = Redactor(secrets)
    return b"".join(redactor.feed(chunk) for chunk in chunks) + redactor.rest()


def test_secrets_are_replaced_and_lengths_stay() -> None:
    clean = redacted([TEXT])
    assert len(clean) == len(TEXT)
    for secret in SECRETS:
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            assert form.encode() not in clean
    assert clean.startswith(b"plain *************** then ")
    assert clean.endswith(b" sk-secret sk-")


def test_two_secrets_that_overlap_are_both_covered() -> None:
    assert redacted([b"sk-secret-value-longer-overlap"]) == b"*" * 30


@pytest.mark.parametrize("cut", range(len(TEXT)))
def test_a_cut_anywhere_changes_nothing(cut: int) -> None:
    assert redacted([TEXT[:cut], TEXT[cut:]]) == redacted([TEXT])


@pytest.mark.parametrize("seed", range(50))
def test_many_cuts_change_nothing(seed: int) -> None:
    cuts = sorted(random.Random(seed).sample(range(len(TEXT)), 12))
    chunks = [TEXT[a:b] for a, b in zip([0, *cuts], [*cuts, len(TEXT)], strict=True)]
    assert redacted(chunks) == redacted([TEXT])


def test_only_what_may_begin_a_secret_waits() -> None:
    redactor = Redactor(["sk-secret-value"])
    assert redactor.feed(b"a line\n") == b"a line\n"
    assert redactor.feed(b"half: sk-sec") == b"half: "
    assert redactor.feed(b"ond\n") == b"sk-second\n"


def test_what_is_too_short_to_be_a_secret_is_none() -> None:
    assert redacted([b"1234567 true"], ("1234567", "true", "")) == b"1234567 true"


def test_a_key_is_a_secret_and_an_endpoint_is_none() -> None:
    assert secrets_in(["sk-0123456789", "https://models.example/v1"]) == ("sk-0123456789",)


@pytest.mark.parametrize("url", ["https://me:word@models.example/v1", "https://models.example/v1?key=0123456789", "https://[x"])
def test_an_endpoint_that_may_carry_a_password_is_a_secret(url: str) -> None:
    assert secrets_in([url]) == (url,)


def test_a_key_file_is_a_secret_piece_by_piece() -> None:
    tokens = {"access_token": "eyJ-access-0123456789", "more": ["refresh-0123456789"], "count": 3}
    file = json.dumps({"auth_mode": "chatgpt", "issuer": "https://login.example/token", "tokens": tokens})
    assert set(secrets_in([file])) == {file, "eyJ-access-0123456789", "refresh-0123456789"}
    assert Redactor(secrets_in([file])).feed(b"Bearer eyJ-access-0123456789!") == b"Bearer *********************!"


def test_what_only_looks_like_a_key_file_is_a_secret_whole() -> None:
    assert secrets_in(["{not json"]) == ("{not json",)


def test_a_secret_that_overlaps_itself_holds_nothing_back_for_long() -> None:
    redactor = Redactor(["xxxxxxxx"])
    given = [b"x" * 50] * 20 + [b" and xxx"]
    out = [redactor.feed(chunk) for chunk in given]
    assert all(len(b"".join(given[: n + 1])) - len(b"".join(out[: n + 1])) < 8 for n in range(len(given)))
    assert b"".join(out) + redactor.rest() == b"*" * 1000 + b" and xxx"


@pytest.mark.parametrize("seed", range(50))
def test_overlapping_secrets_are_starred_the_same_however_the_stream_is_cut(seed: int) -> None:
    source = random.Random(seed)
    secrets = tuple("".join(source.choices("ab", k=source.randint(8, 12))) for _ in range(3))
    text = "".join(source.choices([*secrets, "a", "b", "abab", " "], k=60)).encode()
    cuts = sorted(source.sample(range(len(text)), 20))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert redacted(chunks, secrets) == redacted([text], secrets)


KEY = "sk-0123456789"
SAID = f"my {KEY} is sk-01 ä"


def shown(payloads: list[Payload], kind: type[MessageDelta | ReasoningDelta] = MessageDelta) -> str:
    return "".join(payload.text for payload in payloads if isinstance(payload, kind))


@pytest.mark.parametrize("size", range(1, len(SAID) + 1))
def test_a_secret_said_in_pieces_is_found_where_they_meet(size: int) -> None:
    spoken, told = SpokenText([KEY]), list[Payload]()
    for at in range(0, len(SAID), size):
        told += spoken.told(MessageDelta(message_id="m", text=SAID[at : at + size]))
    told += spoken.told(MessageCompleted(message_id="m", text=SAID))
    assert shown(told) == SAID.replace(KEY, "*" * len(KEY))
    assert isinstance(told[-1], MessageCompleted)
    assert told[-1].text == shown(told)
    assert spoken.rest() == []


def test_messages_and_thoughts_are_not_mixed_up() -> None:
    spoken, told = SpokenText([KEY]), list[Payload]()
    for at in range(len(KEY)):
        told += spoken.told(MessageDelta(message_id="m", text=KEY[at]))
        told += spoken.told(ReasoningDelta(message_id="m", text=KEY[at]))
        told += spoken.told(MessageDelta(message_id="n", text="s"))
    told += spoken.told(ReasoningCompleted(message_id="m", text=""))
    told += spoken.rest()
    assert sorted(shown(told)) == sorted("*" * len(KEY) + "s" * len(KEY))
    assert shown(told, ReasoningDelta) == "*" * len(KEY)


def test_what_waits_is_told_at_the_end() -> None:
    spoken = SpokenText([KEY])
    assert shown(spoken.told(MessageDelta(message_id="m", text="it begins sk-0"))) == "it begins "
    assert spoken.told(UsageUpdated(usage=Usage(input_tokens=1, output_tokens=1)))
    assert shown(spoken.rest()) == "sk-0"


def test_half_a_surrogate_pair_is_passed_on() -> None:
    assert shown(SpokenText([KEY]).told(MessageDelta(message_id="m", text="half \ud83d"))) == "half \ud83d"


def test_a_secret_inside_a_json_answer_is_masked_and_the_answer_stays_json() -> None:
    spoken = SpokenText(["s3cret-value"])
    answer = {"key": "it is s3cret-value", "list": ["s3cret-value", 1, None], "s3cret-value": True}
    masked = spoken.clean_value(answer)
    assert "s3cret" not in str(masked)
    assert masked["list"][1:] == [1, None]
    assert spoken.clean_value({"plain": [1]}) == {"plain": [1]}
    assert (spoken.clean_value(None), spoken.clean_value("s3cret-value")) == (None, "*" * 12)


def test_a_number_that_is_a_secret_leaves_the_text_of_its_answer() -> None:
    assert SpokenText(["12345678"]).clean_value({"n": 12345678}) == '{"n": ********}'
