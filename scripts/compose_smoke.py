"""Builds the containers, runs runs through them, kills containers under them, adds executors, and tells what it saw.

Needs Docker and docker-compose. Where no engine runs it starts one, and where no registry answers it makes the base images
itself (``deploy/local-engine.sh``). It leaves nothing behind but images. Exit status 0: everything held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.compose_caller import BrokenPromiseError, Caller, Json, expect, matches, script
from scripts.compose_secrets import make_files
from scripts.compose_stack import ROOT, ComposeStack, Container, StackError, engine, files_of, need_base_images
from shared.contracts.environment import CREDENTIAL_NAMES
from shared.contracts.providers import ALIASES, DRIVEN, Provider

ENGINES = frozenset({*Provider, *ALIASES}) - {Provider.SCRIPTED}
RUNTIMES = frozenset({"node", "npm", "npx", "bun"})
ENGINE_PACKAGES = frozenset({"executor", "node_modules"})  # adapters are a part of the first
TRUE_STATUS_SECONDS = 30.0  # 15 by design, and as much again for a machine that does other work
TICKS = 400
BUSY = script({"say": "up"}, {"repeat": {"count": TICKS, "everyMs": 50, "say": "tick {i}"}})
LASTING = script({"repeat": {"count": 6_000, "everyMs": 100, "say": "tick {i}"}})  # until it is struck
ASKING = script({"ask": {"prompt": "Which colour?"}}, {"say": "after"})
MODEL_STUB = """
import asyncio
from tests.model_stub.server import ModelStub

async def serve():
    async with await asyncio.start_server(ModelStub().serve, "0.0.0.0", 8000) as server:
        await server.serve_forever()

asyncio.run(serve())
"""
GRACEFUL = frozenset({0, 143})
HEALTH_CHECK = ROOT / "scripts" / "provider-runtime-health-check.sh"
CHECK_SECONDS = 60.0
READY, NOT_READY = 0, 2  # exit statuses of the health check


@dataclass(frozen=True)
class Seen:
    """One thing that was looked at: what came of it, and how long it took."""

    what: str
    saw: str
    seconds: float


@dataclass
class Smoke:
    stack: ComposeStack
    caller: Caller

    async def one_run(self) -> str:
        """Started at one replica, followed at both: the same frames, and what the engine said."""
        run_id = await self.caller.start("hello from a container")
        frames = await self.caller.follow(run_id, at=1)
        events = await self.caller.check(run_id)
        matches(frames, events)
        shown = await self.caller.show(run_id)
        expect((shown["status"], shown["result"]) == ("success", "hello from a container"), str(shown))
        kinds = [each["kind"] for each in events]
        for kind in ("attempt.started", "message.completed", "attempt.ended", "run.status"):
            expect(kind in kinds, f"there is no {kind} in {kinds}")
        return f"success, {len(events)} events, the same at {len(self.stack.urls())} replicas: {' '.join(kinds)}"

    async def a_question(self) -> str:
        """Asked in a container, answered at the other replica."""
        run_id = await self._asked()
        await self.caller.reply(run_id, "blue", at=1)
        shown = await self.caller.until_ended(run_id)
        expect(shown["status"] == "success" and "reply: blue" in str(await self.caller.check(run_id)), str(shown))
        return "asked, answered at the other replica, success"

    async def an_engine(self) -> str:
        """The real Codex in its container, at a model endpoint in another one, with a key that an app lends."""
        defaults = {
            "provider": Provider.CODEX_APP_SERVER, "model": "gpt-5.5", "credentialEnv": {"OPENAI_API_KEY": "sk-of-a-smoke-test"},
            "providerOptions": {"baseUrl": "http://model-stub:8000/v1"},
        }  # fmt: skip
        app = {"appId": "smoke", "name": "Smoke test", "runtimeDefaults": defaults}
        await self.caller.call("POST", "/api/apps/register", json=app)
        with self.stack.beside("model-stub", MODEL_STUB):
            run_id = await self.caller.start("hello", provider=None, executionProfile="smoke")
            shown = await self.caller.until_ended(run_id)
        expect(shown["status"] == "success", str(shown))
        events = await self.caller.check(run_id)
        return f"{shown['provider']} in a container: success, {len(events)} events, it said {shown['result']!r}"

    async def survived(self, service: str) -> str:
        """A container of this service is killed under runs: they go on in their first attempt, and no reader misses an event."""
        busy, asked = await self.caller.start(BUSY), await self._asked()
        cuts = self.caller.cuts
        readers = [asyncio.create_task(self.caller.follow(busy, at)) for at in range(2)]
        await self.caller.until_working(busy, "tick 5")
        victim = (await asyncio.to_thread(self.stack.containers, service))[0]
        await asyncio.to_thread(self.stack.kill, victim)
        await asyncio.sleep(1)  # the length of the outage, not a wait for anything
        await asyncio.to_thread(self.stack.start, victim)
        shown = await self.caller.until_ended(busy)
        expect((shown["status"], shown["attempt"]) == ("success", 1), f"{shown['status']} in attempt {shown['attempt']}")
        events = await self.caller.check(busy)
        expect(_ticks(events) == list(range(1, TICKS + 1)), "ticks are missing or doubled")
        for frames in await asyncio.gather(*readers):
            matches(frames, events)
        await self.caller.reply(asked, "blue")
        ended = await self.caller.until_ended(asked)
        expect((ended["status"], ended["attempt"]) == ("success", 1), f"the question's run is {ended['status']}")
        await self.caller.check(asked)
        await asyncio.to_thread(self.stack.all_well)
        return (
            f"the run went on in attempt 1, {len(events)} events, every tick once; its two readers lost "
            f"{self.caller.cuts - cuts} connections and no event; the open question was answered after it"
        )

    async def executor_lost(self) -> str:
        """An executor stays dead: its working run ends as lost, its asking one waits for the reply, the others notice nothing."""
        busy = [await self.caller.start(LASTING), await self.caller.start(BUSY)]
        asked = [await self._asked() for _ in range(2)]
        for run_id in busy:
            await self.caller.until_working(run_id, "tick 5")
        places = {run_id: await self._executor_of(run_id) for run_id in (*busy, *asked)}
        struck = places[busy[0]]
        fleet = await asyncio.to_thread(self.stack.fleet)
        url = next(each["url"] for each in fleet if each["state"]["executorId"] == struck)
        victim = await asyncio.to_thread(self.stack.at, url)
        await asyncio.to_thread(self.stack.kill, victim)
        began = time.monotonic()
        lost = await self.caller.until_ended(busy[0], TRUE_STATUS_SECONDS)
        took = time.monotonic() - began
        expect((lost["status"], lost["errorCode"], lost["retryable"]) == ("error", "executor_lost", True), str(lost))
        told = [await self._told_truly(run_id, places[run_id] == struck) for run_id in busy[1:]]
        told += [await self._answered(run_id, places[run_id] == struck) for run_id in asked]
        for run_id in (*busy, *asked):
            await self.caller.check(run_id)
        await self._comes_back(victim, struck)
        return f"error/executor_lost after {took:.1f} s; of the others: {', '.join(told)}; the container came back as {struck}"

    async def crashed(self) -> str:
        """Every process of every container dies: Docker starts them again, and what was asked before is answered after."""
        asked = await self._asked()
        before = await asyncio.to_thread(self.stack.containers)
        for each in before:
            await asyncio.to_thread(self.stack.crash, each)
        await asyncio.to_thread(self.stack.until_restarted, before)
        await asyncio.to_thread(self.stack.until_fleet, 2)
        await self.caller.until(asked, lambda shown: shown["phase"] == "parked", TRUE_STATUS_SECONDS)
        told = await self._answered(asked, was_struck=True)
        await self.caller.check(asked)
        return f"{len(before)} containers were restarted by Docker; the open question was {told}"

    async def three_executors(self) -> str:
        """``--scale executor=3``: DNS tells, and the third one works."""
        await asyncio.to_thread(self.stack.up, "--no-recreate", "--scale", "executor=3")
        fleet = await asyncio.to_thread(self.stack.until_fleet, 3)
        runs = [await self.caller.start(BUSY) for _ in range(6)]
        for run_id in runs:
            await self.caller.until_working(run_id, "up")
        used = {await self._executor_of(run_id) for run_id in runs}
        for run_id in runs:
            expect((await self.caller.until_ended(run_id))["status"] == "success", f"{run_id} failed")
            await self.caller.check(run_id)
        expect(used == {each["state"]["executorId"] for each in fleet}, f"runs were at {used} only")
        return f"three in /api/executors ({', '.join(sorted(each['url'] for each in fleet))}), six runs at all three"

    async def in_order(self) -> str:
        """Every container ends by itself when it is asked to."""
        await asyncio.to_thread(self.stack.compose, "stop")
        ends = {each.service: each.exit_code for each in await asyncio.to_thread(self.stack.containers)}
        expect(set(ends.values()) <= GRACEFUL, f"ended by force: {ends}")
        return ", ".join(f"{service} {code}" for service, code in sorted(ends.items()))

    async def _asked(self) -> str:
        run_id = await self.caller.start(ASKING)
        await self.caller.until(run_id, lambda shown: shown["status"] == "waiting_user")
        return run_id

    async def _executor_of(self, run_id: str) -> str:
        events = await self.caller.events(run_id)
        return [each["data"]["executorId"] for each in events if each["kind"] == "attempt.started"][-1]

    async def _told_truly(self, run_id: str, was_struck: bool) -> str:
        shown = await self.caller.until_ended(run_id)
        wanted = ("error", "executor_lost") if was_struck else ("success", None)
        expect((shown["status"], shown["errorCode"]) == wanted, f"{shown['status']} {shown['errorCode']}, not {wanted}")
        return f"{shown['status']}{' (lost too)' if was_struck else ''}"

    async def _answered(self, run_id: str, was_struck: bool) -> str:
        """A question outlives its executor: the run is parked, and the reply starts the next attempt at another one."""
        if was_struck:
            await self.caller.until(run_id, lambda shown: shown["phase"] == "parked", TRUE_STATUS_SECONDS)
        await self.caller.reply(run_id, "blue")
        shown = await self.caller.until_ended(run_id)
        attempt = 2 if was_struck else 1
        expect((shown["status"], shown["attempt"]) == ("success", attempt), f"{shown['status']} in attempt {shown['attempt']}")
        said = [each["data"]["text"] for each in await self.caller.events(run_id) if each["kind"] == "message.completed"]
        expect(any("blue" in text for text in said), f"the engine was not told the reply: {said}")
        return f"answered in attempt {attempt} ({said[0]})"

    async def _comes_back(self, victim: Container, executor_id: str) -> None:
        await asyncio.to_thread(self.stack.start, victim)
        fleet = await asyncio.to_thread(self.stack.until_fleet, 2)
        expect(executor_id in {each["state"]["executorId"] for each in fleet}, "it came back as somebody else")
        await asyncio.to_thread(self.stack.all_well)


def _ticks(events: Iterable[Json]) -> list[int]:
    said = [each["data"]["text"] for each in events if each["kind"] == "message.completed"]
    return [int(text.removeprefix("tick ")) for text in said if text.startswith("tick ")]


def suspects(files: Iterable[tuple[str, bool]]) -> list[str]:
    """The paths that are an engine, what runs one, or code that knows one. ``files``: path, and whether it is a program."""
    found: list[str] = []
    for path, is_program in files:
        *folders, name = path.split("/")
        stem = name.partition(".")[0]
        if (ENGINES | ENGINE_PACKAGES) & {*folders, stem} or (is_program and stem in RUNTIMES):
            found.append(path)
    return found


def search_images(stack: ComposeStack) -> str:
    """Nothing of an engine in the control plane's image; the same search finds plenty in the executor's, so it can find."""
    image = {each.service: each.image for each in stack.containers()}
    clean = {service: suspects(files_of(image[service])) for service in ("control-plane", "executor-manager")}
    expect(not any(clean.values()), f"found what should not be there: {clean}")
    full = suspects(files_of(image["executor"]))
    for name in ("/bin/codex", "/executor/adapters", "/bin/node"):
        expect(any(path.endswith(name) for path in full), f"the search did not even find {name} in the executor's image")
    expect(
        not any("/asyncpg" in path or "/control_plane/" in path for path, _ in files_of(image["executor"])), "asyncpg is there"
    )
    return f"control plane and manager: nothing; the same search finds {len(full)} paths in the executor's image"


def health_of_providers(stack: ComposeStack) -> str:
    """The operator's script on each engine: broken is a failure, without credentials is a fact, told to CI as a warning."""
    told = {
        "RUNYARD_URL": stack.urls()[0], "RUNYARD_API_KEY": stack.secret("admin_key"),
        "EXECUTOR_MANAGER_URLS": stack.manager_url(), "RUNYARD_SERVICE_TOKEN": stack.secret("service_token"),
    }  # fmt: skip
    found: list[str] = []
    for provider in sorted(DRIVEN - {Provider.SCRIPTED}):
        asked = subprocess.run(
            [str(HEALTH_CHECK), "--provider", provider, "--json"], env={**os.environ, **told}, capture_output=True, text=True,
            check=False, timeout=CHECK_SECONDS,
        )  # fmt: skip
        expect(asked.returncode in (READY, NOT_READY), f"{provider}: {asked.stdout}{asked.stderr}")
        report = json.loads(asked.stdout)
        found.append(f"{provider} {report['readinessCategory']}")
        if asked.returncode == NOT_READY and os.environ.get("GITHUB_ACTIONS"):
            print(f"::warning title=environment not ready::{provider}: {report['blockingReason']}", flush=True)
    return ", ".join(found)


async def look(stack: ComposeStack, tell: Callable[[str, Callable[[], Awaitable[str]]], Awaitable[None]]) -> None:
    smoke = Smoke(stack, Caller(stack.urls, stack.secret("admin_key")))
    await tell("search the images", lambda: asyncio.to_thread(search_images, stack))
    await tell("a run", smoke.one_run)
    await tell("a question", smoke.a_question)
    await tell("an engine", smoke.an_engine)
    for service in ("executor-manager", "control-plane", "postgres"):
        await tell(f"docker kill {service}", lambda service=service: smoke.survived(service))
    await tell("docker kill executor", smoke.executor_lost)
    await tell("a crash in each container", smoke.crashed)
    await tell("--scale executor=3", smoke.three_executors)
    await tell("health of the providers", lambda: asyncio.to_thread(health_of_providers, stack))
    await tell("docker-compose stop", smoke.in_order)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", default="runyard-smoke", help="the name compose puts before everything it makes")
    parser.add_argument("--json", type=Path, help="also write what was seen here")
    parser.add_argument("--keep-images", action="store_true", help="use the images that are there instead of building them")
    arguments = parser.parse_args()
    seen: list[Seen] = []

    async def tell(what: str, check: Callable[[], Awaitable[str]]) -> None:
        began = time.monotonic()
        saw = await check()
        seen.append(Seen(what, saw, round(time.monotonic() - began, 1)))
        print(f"{what:<28} {seen[-1].seconds:6.1f} s  {saw}", flush=True)

    try:
        with tempfile.TemporaryDirectory(prefix="runyard-smoke-") as folder, engine() as which:
            print(f"{which}; base images: {need_base_images()}", flush=True)
            asyncio.run(_whole(ComposeStack(arguments.project, Path(folder)), tell, build=not arguments.keep_images))
    except (BrokenPromiseError, StackError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([asdict(each) for each in seen], indent=2))
    print(f"{len(seen)} checks, everything held")
    return 0


def hand_over(environment: Mapping[str, str], env_file: Path) -> list[str]:
    """Write the credentials we were started with to where the executors read theirs. Gives their names.

    Raises ``StackError`` for a value that no env file can carry.
    """
    given = {name: environment[name] for name in sorted(CREDENTIAL_NAMES) if environment.get(name)}
    if unfit := [name for name, value in given.items() if "'" in value or "\n" in value]:
        raise StackError(f"an env file cannot carry the value of {', '.join(unfit)}")
    env_file.write_text("".join(f"{name}='{value}'\n" for name, value in given.items()))
    return list(given)


async def _whole(stack: ComposeStack, tell: Callable[[str, Callable[[], Awaitable[str]]], Awaitable[None]], build: bool) -> None:
    """Build, up, every check, and down in any case."""
    make_files(stack.folder)
    hand_over(os.environ, stack.folder / "provider.env")
    stack.down()  # what an interrupted run may have left

    async def built() -> str:
        await asyncio.to_thread(stack.build)
        return "three images"

    async def came_up() -> str:
        await asyncio.to_thread(stack.up)
        return f"{len(stack.containers())} containers, all healthy"

    try:
        if build:
            await tell("docker-compose build", built)
        await tell("docker-compose up", came_up)
        await look(stack, tell)
    except (BrokenPromiseError, StackError):
        print(stack.logs(), file=sys.stderr)
        raise
    finally:
        stack.down()


if __name__ == "__main__":
    sys.exit(main())
