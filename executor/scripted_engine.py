"""The scripted engine: a child process that plays a list of steps, so that tests, demos, load and chaos need no account.

Run as ``python -I -S scripted_engine.py``. JSON lines on stdin: ``start`` first, then ``reply`` and ``message``; JSON lines on
stdout, one per thing that happened, the last of an orderly end being ``completed``, ``failed`` or ``canceled``.

It knows nothing of Runyard and imports the standard library only, as little of it as it can: it starts thousands of times.

Rules a script may rely on:
- A script is a JSON object with ``"script"`` anywhere in the last user message; without one the prompt is echoed.
- ``{i}`` counts from 1. Every ``say`` is one message; the message after which no step says anything is final.
- ``result`` tells the outcome at once and the steps after it are still played; ``fail``, ``exit`` and ``crash`` end the script.
- Further messages are said at the next step boundary as ``message: <text>``.
- A session counts its turns under HOME; a resumed one first says ``turns: <n>``, this turn included.
- A permission answered with ``declineAndStop`` ends the script as canceled. stdin closed while it waits is exit status 1.
"""

from __future__ import annotations

import os
import sys
import time
from _json import encode_basestring_ascii, make_encoder, make_scanner  # the package ``json`` imports ``re``: half our start
from select import select

TYPE_CHECKING = False  # importing ``typing`` costs more than the rest of a short script
if TYPE_CHECKING:
    from typing import Any, TypeGuard

    Step = dict[str, Any]

BLOCK = 65536
SAYING = frozenset({"say", "deltas", "repeat", "ticks", "ask", "permission", "read", "env", "spawn"})
ENDING = frozenset({"fail", "exit", "crash", "hang"})


class _Reading:
    """What the scanner of ``json`` asks of its decoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float


scan = make_scanner(_Reading())  # pyright: ignore[reportArgumentType] - a decoder by shape
_encode = make_encoder(None, repr, encode_basestring_ascii, None, ":", ",", False, False, True)


def to_json(value: Any) -> str:
    return "".join(_encode(value, 0))


class Ended(Exception):
    """The script is over, with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def put(**line: Any) -> None:
    raw(to_json(line).encode() + b"\n")


def raw(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class Input:
    """JSON lines from stdin. Messages wait here until a step boundary."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_open = True
        self._lines: list[Step] = []
        self._messages: list[str] = []

    def first(self) -> Step:
        while not self._lines:
            self._read()
        return self._lines.pop(0)

    def reply_to(self, asked: int) -> Step:
        while True:
            self._sort()
            for line in self._lines:
                if line.get("type") == "reply" and line.get("id") == asked:
                    self._lines.remove(line)
                    return line
            self._read()

    def messages(self) -> list[str]:
        while self._is_open and select([0], [], [], 0)[0]:
            try:
                self._read()
            except Ended:
                break
        self._sort()
        taken, self._messages = self._messages, []
        return taken

    def _sort(self) -> None:
        self._messages += [line["text"] for line in self._lines if line.get("type") == "message"]
        self._lines = [line for line in self._lines if line.get("type") != "message"]

    def _read(self) -> None:
        data = os.read(0, BLOCK) if self._is_open else b""
        if not data:
            self._is_open = False
            raise Ended(1)
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._lines += [scan(line.decode(), 0)[0] for line in whole if line]


class Player:
    """Plays one script. ``steps`` is a plain list; the method ``step_<name>`` plays the step of that name."""

    def __init__(self, lines: Input, steps: list[Step]) -> None:
        self._lines = lines
        self._steps = steps
        self._ids = 0
        self._asked = 0
        self._is_last = False
        self._is_told = False

    def play(self, first: str | None) -> None:
        speakers = [at for at, step in enumerate(self._reachable()) if self._speaks(step)]
        last = speakers[-1] if speakers else -1
        if first is not None:
            self.say(first, final=last < 0)
        for at, step in enumerate(self._steps):
            self._take_messages(quiet_after=at > last)
            self._is_last = at == last
            self._play(at, step)
        self._take_messages(quiet_after=True)
        self.tell("completed")

    def _play(self, at: int, step: Step) -> None:
        name = self._name(step)
        try:
            getattr(self, f"step_{name}")(step.get(name), step)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
            self.step_fail({"code": "invalid_request", "message": f"step {at + 1} ({name}): {error!r}"}, step)

    def _name(self, step: Step) -> str:
        return next((name for name in step if hasattr(self, f"step_{name}")), "unknown")

    def _reachable(self) -> list[Step]:
        end = next((at for at, step in enumerate(self._steps) if ENDING & step.keys()), len(self._steps))
        return self._steps[:end]

    def _speaks(self, step: Step) -> bool:
        repeated = step.get("repeat")
        return bool(SAYING & step.keys()) and not (is_object(repeated) and repeated.get("count") == 0)

    def _take_messages(self, quiet_after: bool) -> None:
        while texts := self._lines.messages():
            for at, text in enumerate(texts, 1):
                self.say(f"message: {text}", final=quiet_after and at == len(texts))

    def say(self, text: str, final: bool | None = None) -> None:
        put(type="message", id=self._id(), text=text, final=self._is_last if final is None else final)

    def tell(self, how: str, **more: Any) -> None:
        """The outcome, told once."""
        if not self._is_told:
            self._is_told = True
            put(type=how, **more)

    def _id(self) -> str:
        self._ids += 1
        return f"m{self._ids}"

    # ---- messages ----

    def step_say(self, text: str, _step: Step) -> None:
        self.say(str(text))

    def step_deltas(self, parts: list[str], step: Step) -> None:
        self._stream([str(part) for part in parts], step.get("everyMs", 0))

    def step_ticks(self, asked: Any, _step: Step) -> None:
        ticks = as_object(asked, "count")
        text = ticks.get("say", "tick {i} ")
        self._stream([numbered(text, i) for i in range(1, ticks["count"] + 1)], ticks.get("everyMs", 0))

    def _stream(self, parts: list[str], every_ms: float) -> None:
        id = self._id()
        for at, part in enumerate(parts):
            pause(every_ms if at else 0)
            put(type="delta", id=id, text=part)
        put(type="message", id=id, text="".join(parts), final=self._is_last)

    def step_repeat(self, repeat: Step, _step: Step) -> None:
        count, is_last = repeat["count"], self._is_last
        for i in range(1, count + 1):
            pause(repeat.get("everyMs", 0) if i > 1 else 0)
            self.say(numbered(repeat.get("say", "tick {i}"), i), final=is_last and i == count)

    def step_think(self, text: str, _step: Step) -> None:
        put(type="reasoning", id=self._id(), text=str(text))

    # ---- what an engine reports ----

    def step_tool(self, tool: Step, _step: Step) -> None:
        id = self._id()
        put(type="tool_started", id=id, name=tool["name"], input=tool.get("input"))
        put(type="tool_completed", id=id, name=tool["name"], output=tool.get("output"), status=tool.get("status", "completed"))

    def step_usage(self, usage: Step, _step: Step) -> None:
        put(type="usage", inputTokens=usage.get("inputTokens", 0), outputTokens=usage.get("outputTokens", 0))

    def step_plan(self, items: list[Any], _step: Step) -> None:
        put(type="plan", items=[as_object(item, "text") for item in items])

    # ---- questions ----

    def step_ask(self, asked: Step, _step: Step) -> None:
        options = [as_object(each, "label") for each in asked.get("options", [])]
        self._ask(type="ask", prompt=asked.get("prompt", ""), options=options)

    def step_permission(self, asked: Step, _step: Step) -> None:
        self._ask(type="permission", tool=asked["tool"], input=as_object(asked.get("input", {}), "value"))

    def _ask(self, **question: Any) -> None:
        self._asked += 1
        put(id=self._asked, **question)
        reply = self._lines.reply_to(self._asked)
        if reply.get("decision") == "declineAndStop":
            self.tell("canceled")
            raise Ended(0)
        self.say(f"reply: {worded(reply.get('decision') or reply.get('answer'))}")

    # ---- time ----

    def step_sleep(self, seconds: float, _step: Step) -> None:
        time.sleep(seconds)

    def step_hang(self, _on: bool, _step: Step) -> None:
        while True:
            time.sleep(3600)

    def step_ignoreTerm(self, _on: bool, _step: Step) -> None:  # noqa: N802 - the name of the step
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    # ---- the world around it ----

    def step_write(self, file: Step, _step: Step) -> None:
        folder = os.path.dirname(file["path"])
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(file["path"], "w", encoding="utf-8") as out:
            out.write(file.get("text", ""))

    def step_read(self, path: str, _step: Step) -> None:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError as error:
            text = f"cannot read {path}: {error.strerror}"
        self.say(text)

    def step_env(self, names: list[str], _step: Step) -> None:
        self.say(to_json({name: os.environ.get(name) for name in names}))

    def step_spawn(self, argv: list[str], step: Step) -> None:
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=quiet, setsid=bool(step.get("setsid")))
        self.say(f"spawned {pid}")

    # ---- bytes no one expects ----

    def step_stdout(self, text: str, _step: Step) -> None:
        raw(text.encode("utf-8", "replace") + (b"" if text.endswith("\n") else b"\n"))

    def step_stderr(self, text: str, _step: Step) -> None:
        os.write(2, text.encode("utf-8", "replace") + (b"" if text.endswith("\n") else b"\n"))

    def step_bigLine(self, length: int, _step: Step) -> None:  # noqa: N802 - the name of the step
        for at in range(0, length, BLOCK):
            raw(b"x" * min(BLOCK, length - at))
        raw(b"\n")

    def step_binary(self, length: int, _step: Step) -> None:
        raw((bytes(range(256)) * (length // 256 + 1))[:length] + b"\n")

    # ---- how it ends ----

    def step_result(self, result: Any, _step: Step) -> None:
        self.tell("completed", result=result)

    def step_fail(self, fail: Step, _step: Step) -> None:
        asks = {"retryAfterMs": fail["retryAfterMs"]} if "retryAfterMs" in fail else {}
        self.tell("failed", code=str(fail.get("code", "")), message=str(fail.get("message", "")), **asks)
        raise Ended(1)

    def step_exit(self, status: int, _step: Step) -> None:
        raise Ended(status)

    def step_crash(self, _on: bool, _step: Step) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()

    def step_unknown(self, _value: Any, step: Step) -> None:
        raise ValueError(f"there is no such step: {', '.join(step) or 'an empty one'}")


def pause(every_ms: float) -> None:
    if every_ms > 0:
        time.sleep(every_ms / 1000)


def numbered(text: str, i: int) -> str:
    return text.replace("{i}", str(i))


def is_object(value: Any) -> TypeGuard[Step]:
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def as_object(value: Any, name: str) -> Step:
    """``value`` where it is an object, else ``{name: value}``: the short form of many a step."""
    return value if is_object(value) else {name: value}


def worded(answer: Any) -> str:
    if is_list(answer):
        return ", ".join(str(each) for each in answer)
    return answer if isinstance(answer, str) else to_json(answer)


def script_in(text: str) -> list[Step] | None:
    """The steps of the first JSON object with a ``script`` in ``text``; None when there is none."""
    at = text.find("{")
    last = text.rfind('"script"')
    while 0 <= at < last:
        try:
            found: Any = scan(text, at)[0]
        except (ValueError, StopIteration, RecursionError):
            found = None
        if is_object(found) and is_list(steps := found.get("script")):
            return [as_object(step, "unknown") for step in steps]
        at = text.find("{", at + 1)
    return None


def open_session(session: str | None) -> tuple[str, int]:
    """The session's id and the number of its turns, this one included. Raises ``LookupError`` for one nobody began."""
    id = session or os.urandom(8).hex()
    if not id.isalnum():
        raise LookupError("that is no session")
    folder = os.path.join(os.environ.get("HOME", "."), ".scripted")
    path = os.path.join(folder, id)
    turns = 1
    if session is not None:
        try:
            with open(path, encoding="utf-8") as file:
                turns = int(file.read()) + 1
        except (OSError, ValueError) as error:
            raise LookupError(f"there is no session {session}") from error
    os.makedirs(folder, exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(str(turns))
    os.replace(path + ".new", path)
    return id, turns


def main() -> int:
    lines = Input()
    try:
        start = lines.first()
        return run(lines, start["prompt"], start["last"], start.get("session"))
    except Ended as end:
        return end.status


def run(lines: Input, prompt: str, last: str, resumed: str | None) -> int:
    try:
        id, turns = open_session(resumed)
    except LookupError as error:
        put(type="failed", code="not_found", message=str(error))
        return 1
    put(type="session", id=id)
    steps = script_in(last)
    Player(lines, [{"say": prompt}] if steps is None else steps).play(f"turns: {turns}" if resumed else None)
    return 0


if __name__ == "__main__":
    os._exit(main())
