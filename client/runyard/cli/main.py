"""``runyard``: start a local stack, start runs, follow them, answer their questions.

Heavy modules are imported inside commands: most of a command line's start is imports. Exit statuses: see ``exits``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from runyard.cli.standard_streams import make_usable, text_or_stdin

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run AI engine CLIs as durable runs.", rich_markup_mode=None)

Url = Annotated[str | None, typer.Option("--url", help="The API; default: RUNYARD_URL, else the stack up on this machine.")]
Key = Annotated[str | None, typer.Option("--key", help="The API key; default: RUNYARD_API_KEY, else the local stack's.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text.")]
RunId = Annotated[str, typer.Argument(help="The run's id.")]


@app.command()
def up(  # noqa: PLR0913 (a parameter is an option)
    state_dir: Annotated[Path | None, typer.Option(help="Where its state lives; default ~/.local/state/runyard.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_000, help="Of the API; 0: free ports everywhere.")] = None,
    executors: Annotated[int, typer.Option(min=1, max=32)] = 1,
    control_planes: Annotated[int, typer.Option(min=1, max=8)] = 1,
    managers: Annotated[int, typer.Option(min=1, max=8)] = 1,
    ready_file: Annotated[Path | None, typer.Option(help="Written when all is up, and whenever a pid changes.")] = None,
    database_url: Annotated[str | None, typer.Option(envvar="DATABASE_URL", help="Instead of an embedded Postgres.")] = None,
) -> None:
    """Start a local stack and keep it running until Ctrl-C."""
    from runyard.cli.exits import Exit, complain
    from runyard.local_stack.stack import StackError, StackOptions, default_state_dir
    from runyard.local_stack.supervisor import Supervisor, say_on_stderr

    options = StackOptions(
        state_dir or default_state_dir(), port, executors, control_planes, managers, ready_file, database_url or None
    )

    def tell(ready: dict[str, object]) -> None:
        print(f"Runyard is up at {ready['portalUrl']}")
        print(f"  export RUNYARD_URL={ready['apiUrl']} RUNYARD_API_KEY={ready['apiKey']}", flush=True)

    try:
        Supervisor(options, say_on_stderr, tell).run()
    except (StackError, OSError) as error:
        complain(str(error))
        raise typer.Exit(Exit.ERROR) from None


@app.command()
def run(  # noqa: PLR0913 (a parameter is an option)
    prompt: Annotated[str, typer.Argument(help="What to do; - reads it from stdin.")],
    provider: Annotated[str | None, typer.Option("--provider", "-p")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m")] = None,
    engine_mode: Annotated[str | None, typer.Option(help="plan, read-only, ask, auto-edit or full.")] = None,
    session: Annotated[str | None, typer.Option(help="The conversation to go on with.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--detach", help="Watch it to its end, or only start it.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON event a line.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Start a run and follow it; the exit status is the run's."""
    from runyard.cli.exits import finish
    from runyard.cli.runs import start

    request = {"provider": provider, "model": model, "engineMode": engine_mode, "sessionId": session}
    finish(start(url, key, text_or_stdin(prompt), request, follows=follow, as_json=as_json))


@app.command()
def attach(
    run_id: RunId,
    after: Annotated[int, typer.Option(min=0, help="Show only events after this cursor.")] = 0,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Follow a run from its first event; the exit status is the run's."""
    from runyard.cli.exits import finish
    from runyard.cli.runs import attach_to

    finish(attach_to(url, key, run_id, after, as_json))


@app.command("runs")
def list_runs(
    status: Annotated[str | None, typer.Option()] = None,
    provider: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List runs, newest first."""
    from runyard.cli.exits import finish
    from runyard.cli.runs import show_runs

    finish(show_runs(url, key, {"status": status, "provider": provider, "limit": limit}, as_json))


@app.command()
def logs(
    run_id: RunId,
    stream: Annotated[str, typer.Option(help="stdout or stderr.")] = "stdout",
    attempt: Annotated[int | None, typer.Option(min=1, help="Default: the newest.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Print what the engine itself printed, byte for byte."""
    from runyard.cli.exits import finish
    from runyard.cli.runs import print_log

    finish(print_log(url, key, run_id, (stream, attempt), as_json))


@app.command()
def stop(run_id: RunId, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Stop a run; one that has ended stays as it is."""
    from runyard.cli.exits import finish
    from runyard.cli.runs import stop_run

    finish(stop_run(url, key, run_id, as_json))


@app.command()
def reply(  # noqa: PLR0913 (a parameter is an option)
    run_id: RunId,
    question_id: Annotated[str | None, typer.Argument(help="Not needed when one question waits.")] = None,
    answer: Annotated[str | None, typer.Option(help="To a question.")] = None,
    decision: Annotated[str | None, typer.Option(help="accept, acceptForSession, decline or declineAndStop.")] = None,
    message: Annotated[str | None, typer.Option(help="Told to the engine with a decision.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Answer a question a run waits with."""
    from runyard.cli.exits import finish
    from runyard.cli.runs import send_reply

    if (answer is None) == (decision is None):
        raise typer.BadParameter("give either --answer or --decision")
    said = {"answer": answer, "decision": decision, "message": message}
    finish(send_reply(url, key, (run_id, question_id), said, as_json))


@app.command()
def say(
    run_id: RunId,
    text: Annotated[str, typer.Argument(help="What to tell the engine; - reads it from stdin.")],
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Send a further message into a run; its events tell what becomes of it."""
    from runyard.cli.exits import finish
    from runyard.cli.files import say_to

    finish(say_to(url, key, run_id, text_or_stdin(text), as_json))


@app.command()
def files(
    run_id: RunId,
    get: Annotated[str | None, typer.Option("--get", help="Print this file instead of the list.")] = None,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="Write all files there, as one zip.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List the files a run left, or fetch them."""
    from runyard.cli.exits import finish
    from runyard.cli.files import fetch_bundle, list_files, print_file

    if get is not None and bundle is not None:
        raise typer.BadParameter("give either --get or --bundle")
    if bundle is not None and bundle.is_dir():
        raise typer.BadParameter(f"{bundle} is a folder; give the zip a name in it")
    if get is not None:
        finish(print_file(url, key, run_id, get))
    finish(list_files(url, key, run_id, as_json) if bundle is None else fetch_bundle(url, key, run_id, bundle))


@app.command()
def pending(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the questions that wait for an answer, across runs."""
    from runyard.cli.exits import finish
    from runyard.cli.runs import show_pending

    finish(show_pending(url, key, as_json))


@app.command()
def doctor(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Say what is here: Python, Postgres, engines, credentials (names only), the stack and its providers."""
    from runyard.cli.doctor import examine
    from runyard.cli.exits import finish

    finish(examine(url, key, as_json))


@app.command()
def demo(
    state_dir: Annotated[Path | None, typer.Option(help="Keep its state here; default: a folder that is deleted.")] = None,
) -> None:
    """Start a stack on free ports, run one scripted run through it, answer its question, stop everything."""
    from runyard.cli.demo import play

    raise typer.Exit(play(state_dir))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def harness() -> None:
    """Run an engine under your own arguments: harness ENGINE -- ARGS…, then harness resume HANDLE MESSAGE."""


def main() -> None:
    """The console command."""
    if sys.argv[1:2] == ["harness"] and sys.argv[2:3] != ["--help"]:
        # Before anything looks at them: the arguments are the engine's. It stands in this process's place.
        # -P: nothing of the folder we are in is ours to import.
        os.execv(sys.executable, [sys.executable, "-P", "-m", "executor.harness", *sys.argv[2:]])
    make_usable()
    try:
        app(prog_name="runyard")
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
