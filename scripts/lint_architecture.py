"""Rules about the shape of the code that no linter knows. Prints what it found and ends with 1; silent and 0 when all is well.

A limit of size may be broken with a reason: ``# long: <why>`` on the line of the ``def``, or in the first lines of the file.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
MAX_POLL_SECONDS = 0.1
BANNED = frozenset({"utils", "util", "helpers", "common", "misc"})
SERVICES = ("control_plane", "executor_manager", "executor", "client")
CODE = (*SERVICES, "shared", "scripts")
PROVIDERS = frozenset({
    "codex-app-server", "claude-code", "opencode", "gemini-cli", "iflow-cli", "qwen-code",
    "codex-cli", "codex", "claude", "gemini", "iflow", "qwen",
})  # fmt: skip
ONE_SERVICE = {
    "shared.ids": "ids look alike wherever they are made; so far one service makes them",
    "shared.contracts.apps": "what callers send and see is a contract, whoever else reads it",
}
KNOW_PROVIDERS = ("executor/adapters/", "shared/contracts/", "tests/")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file, read and parsed once."""

    root: Path
    path: Path

    @cached_property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @cached_property
    def lines(self) -> list[str]:
        return self.path.read_text("utf-8").split("\n")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse("\n".join(self.lines), self.name)))

    def comment(self, line: int) -> str:
        """What stands behind the first # of a line, without markers for other linters."""
        text = self.lines[line - 1].partition("#")[2].strip()
        return "" if text.startswith(("noqa", "pyright:", "type:")) and "  " not in text else text


def a_file_is_short(source: Source) -> Iterator[str]:
    if len(source.lines) - 1 > MAX_FILE_LINES and not any("# long: " in line for line in source.lines[:5]):
        yield f"{source.name}: {len(source.lines) - 1} lines, at most {MAX_FILE_LINES}"


def a_function_is_short(source: Source) -> Iterator[str]:
    """Functions inside a function count for themselves only."""
    for node in source.nodes:
        if not isinstance(node, Function) or "# long: " in source.lines[node.lineno - 1]:
            continue
        inner = [each for each in node.body if isinstance(each, Function)]
        lines = _length(node) - sum(_length(each) for each in inner)
        if lines > MAX_FUNCTION_LINES:
            yield f"{source.name}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}"


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def a_name_says_something(source: Source) -> Iterator[str]:
    for part in Path(source.name).with_suffix("").parts:
        if part in BANNED:
            yield f"{source.name}: {part!r} says nothing about what is inside"


def a_test_does_not_sleep(source: Source) -> Iterator[str]:
    """Only with the reason on the line, or for a moment in a loop that polls; ``sleep(0)`` is a turn of the loop, not a wait."""
    if not source.name.startswith("tests/"):
        return
    polls = {id(call) for loop in source.nodes if isinstance(loop, ast.While) for call in _sleeps(loop.body) if _is_moment(call)}
    for call in _sleeps(source.nodes):
        if id(call) not in polls and ast.unparse(call.args[0]) != "0" and not source.comment(call.lineno):
            yield f"{source.name}:{call.lineno}: a test sleeps without saying why"


def _sleeps(nodes: Sequence[ast.AST]) -> list[ast.Call]:
    """The statements among ``nodes`` that sleep."""
    found: list[ast.Call] = []
    for node in nodes:
        call = node.value if isinstance(node, ast.Expr) else None
        call = call.value if isinstance(call, ast.Await) else call
        if isinstance(call, ast.Call) and call.args and ast.unparse(call.func) in ("asyncio.sleep", "time.sleep", "sleep"):
            found.append(call)
    return found


def _is_moment(call: ast.Call) -> bool:
    seconds = call.args[0]
    return isinstance(seconds, ast.Constant) and isinstance(seconds.value, float | int) and seconds.value <= MAX_POLL_SECONDS


def a_task_has_an_owner(source: Source) -> Iterator[str]:
    """A ``TaskGroup`` owns what it makes; the loop owns nothing."""
    for node in source.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            owner, _, verb = called.rpartition(".")
            if verb in ("create_task", "ensure_future") and (owner in ("", "asyncio") or "loop" in owner):
                yield f"{source.name}:{node.lineno}: the task of {called} belongs to nobody"


def a_provider_is_a_row_of_a_table(source: Source) -> Iterator[str]:
    if source.name.startswith(KNOW_PROVIDERS):
        return
    for node in source.nodes:
        compared: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        for each in (leaf for side in compared for leaf in _leaves(side)):
            if (isinstance(each, ast.Constant) and each.value in PROVIDERS) or ast.unparse(each).startswith("Provider."):
                yield f"{source.name}:{each.lineno}: asks for the provider {ast.unparse(each)}: make it a row of a table"


def _leaves(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


RULES: tuple[Callable[[Source], Iterator[str]], ...] = (
    a_file_is_short, a_function_is_short, a_name_says_something,
    a_test_does_not_sleep, a_task_has_an_owner, a_provider_is_a_row_of_a_table,
)  # fmt: skip


def shared_is_shared(sources: list[Source]) -> Iterator[str]:
    """A module of ``shared`` that fewer than two services reach, also through others of it, belongs to the one that does."""
    imports = {_module(source): _imported(source) for source in sources}
    reached: dict[str, set[str]] = {}
    for service in SERVICES:
        todo = [name for module, names in imports.items() if module.split(".")[0] == service for name in names]
        while todo:
            name = todo.pop()
            if name in imports and name.startswith("shared.") and service not in reached.setdefault(name, set()):
                reached[name].add(service)
                todo += imports[name]
    packages = {_module(source) for source in sources if source.path.name == "__init__.py"}
    for module in sorted(imports.keys() - packages - ONE_SERVICE.keys()):
        if module.startswith("shared.") and len(reached.get(module, ())) < 2:
            by = ", ".join(reached.get(module, ())) or "nobody"
            yield f"{module} is reached by {by}: shared is for two services or more"


def _module(source: Source) -> str:
    return source.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imported(source: Source) -> list[str]:
    """Absolute imports only: the code has no others."""
    names: list[str] = []
    for node in source.nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def findings(root: Path) -> list[str]:
    """Everything that is wrong in the tree at ``root``."""
    code = [Source(root, path) for top in CODE for path in sorted((root / top).rglob("*.py"))]
    tests = [Source(root, path) for path in sorted((root / "tests").rglob("*.py"))]
    found = [finding for source in [*code, *tests] for rule in RULES for finding in rule(source)]
    return found + list(shared_is_shared(code))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parent.parent)
    found = findings(parser.parse_args().root.resolve())
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
