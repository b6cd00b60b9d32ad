"""The architecture holds, and whoever breaks it is told: each import contract and each own rule against a planted violation."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path

import pytest

from scripts.lint_architecture import MAX_FILE_LINES, MAX_FUNCTION_LINES, PROVIDERS, findings
from shared.contracts.providers import ALIASES, Provider

ROOT = Path(__file__).parents[2]
PACKAGES = {"control_plane": ".", "executor_manager": ".", "executor": ".", "shared": ".", "runyard": "client"}

# The contract, the module to spoil, what it is made to import.
PLANTS = [
    ("Services and the client know shared and never each other", "executor_manager.fleet", "executor.attempts.limits"),
    ("Services and the client know shared and never each other", "control_plane.manager_client", "executor_manager.relay"),
    ("Services and the client know shared and never each other", "runyard.api", "control_plane.domain"),
    ("Services and the client know shared and never each other", "shared.ids", "executor.events.journal"),
    ("The control plane's floors", "control_plane.storage.runs", "control_plane.runs.create"),
    ("The control plane's floors", "control_plane.domain.run", "control_plane.storage.pool"),
    ("The executor manager's floors", "executor_manager.placement", "executor_manager.fleet"),
    ("The executor's floors", "executor.events.journal", "executor.attempts.runner"),
    ("The floors of an attempt", "executor.attempts.plan", "executor.attempts.runner"),
    ("The floors of what attempts stand on", "executor.processes.procfs", "executor.processes.process_tree"),
    ("The floors of what is shared", "shared.errors", "shared.web"),
    ("The client's floors", "runyard.api", "runyard.cli"),
    ("Engine adapters do not know each other", "executor.adapters.scripted", "executor.adapters.codex.adapter"),
    ("Engine adapters do not know each other", "executor.adapters.acp.tools", "executor.adapters.qwen.adapter"),
    ("Domain, adapters and contracts do no I/O", "control_plane.domain.lifecycle", "time"),
    ("Domain, adapters and contracts do no I/O", "executor.adapters.base", "subprocess"),
    ("Domain, adapters and contracts do no I/O", "shared.contracts.wire", "asyncio"),
    ("Views are projections: they ask nobody", "control_plane.views.api", "control_plane.storage.runs"),
    ("Only the control plane's storage talks to Postgres", "control_plane.runs.create", "asyncpg"),
    ("Only shared.http and the client use httpx", "control_plane.manager_client", "httpx"),
    ("Settings stop at the door", "control_plane.routes.runs", "control_plane.settings"),
]
CYCLES = "No two neighbours need each other"
CYCLE = [
    (CYCLES, "executor_manager.timeouts", "executor_manager.relay"),
    (CYCLES, "executor_manager.relay", "executor_manager.timeouts"),
]
UNPLACED = {
    "The control plane's floors": "control_plane.utils",
    "The executor manager's floors": "executor_manager.registry",
    "The executor's floors": "executor.registry",
    "The floors of an attempt": "executor.attempts.waiting",
    "The floors of what attempts stand on": "executor.events.registry",
    "Engine adapters do not know each other": "executor.adapters.registry",
    "The floors of what is shared": "shared.registry",
    "The client's floors": "runyard.registry",
}


def copy_of_the_packages(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(ROOT / ".importlinter", folder)
    for name, parent in PACKAGES.items():
        shutil.copytree(ROOT / parent / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    return folder


def file_of(tree: Path, module: str) -> Path:
    path = tree.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def lint_imports(tree: Path) -> tuple[Mapping[str, str], str]:
    """What each contract came to, and the whole report."""
    linter = Path(sys.executable).parent / "lint-imports"
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "500"}
    ended = subprocess.run(
        [linter, "--no-cache", "--verbose"], cwd=tree, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    report = re.sub(r"\s+\(\d+ ignored imports?\)", "", ended.stdout)
    return dict(re.findall(r"^(.+) (KEPT|BROKEN)$", report, re.MULTILINE)), report + ended.stderr


def section(report: str, contract: str) -> str:
    """What the report says about one broken contract."""
    told = report.partition("Broken contracts\n")[2].partition(f"\n{contract}\n")[2]
    return re.split(r"\n\n\n(?=[^\n]+\n-{5})", told)[0]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mapping[str, str], str]:
    """The verdicts over a tree with all violations at once."""
    tree = copy_of_the_packages(tmp_path_factory.mktemp("spoiled") / "tree")
    for _, module, imported in PLANTS + CYCLE:
        with file_of(tree, module).open("a", encoding="utf-8") as file:
            file.write(f"\nimport {imported}\n")
    for module in UNPLACED.values():
        file_of(tree, module).write_text('"""New."""\n', "utf-8")
    return lint_imports(tree)


def test_every_import_contract_holds(tmp_path: Path) -> None:
    verdicts, report = lint_imports(copy_of_the_packages(tmp_path / "tree"))
    assert set(verdicts) == contract_names(), report
    assert set(verdicts.values()) == {"KEPT"}, report


def contract_names() -> set[str]:
    config = ConfigParser()
    config.read(ROOT / ".importlinter", "utf-8")
    return {config[section]["name"] for section in config.sections() if section.startswith("importlinter:contract:")}


def test_no_contract_is_without_a_planted_violation() -> None:
    assert {contract for contract, *_ in PLANTS + CYCLE} == contract_names()


@pytest.mark.parametrize(("contract", "module", "imported"), PLANTS)
def test_a_planted_import_breaks_its_contract(spoiled, contract: str, module: str, imported: str) -> None:
    assert spoiled[0][contract] == "BROKEN"
    told = section(spoiled[1], contract)
    assert f"{module} -> {imported}" in told, told


def test_a_planted_cycle_is_found(spoiled) -> None:
    assert spoiled[0][CYCLES] == "BROKEN"
    assert "No cycles are allowed in executor_manager" in section(spoiled[1], CYCLES)


@pytest.mark.parametrize(("contract", "module"), UNPLACED.items())
def test_a_new_module_must_be_placed(spoiled, contract: str, module: str) -> None:
    assert spoiled[0][contract] == "BROKEN"
    assert module in section(spoiled[1], contract)


# ---- the rules of our own ----


def test_the_tree_keeps_its_own_rules() -> None:
    assert findings(ROOT) == []


def test_the_rule_about_providers_knows_all_their_names() -> None:
    names = {provider.value for provider in Provider if provider is not Provider.SCRIPTED} | set(ALIASES)
    assert names == PROVIDERS


FUNCTION = "def f() -> None:\n" + "    print()\n" * MAX_FUNCTION_LINES
NESTED = "def f() -> None:\n    def g() -> None:\n" + "        print()\n" * 30 + "\n" + "    print()\n" * 30
OWN_RULES = {
    "a file that is too long": ("executor/x.py", "pass\n" * (MAX_FILE_LINES + 1), "401 lines"),
    "a function that is too long": ("executor/x.py", FUNCTION, "f has 41 lines"),
    "a function inside another one": ("executor/x.py", NESTED, None),
    "a long function with a reason": ("executor/x.py", FUNCTION.replace(":\n", ":  # long: a table\n", 1), None),
    "a module that is called helpers": ("control_plane/helpers.py", "", "'helpers' says nothing"),
    "a package that is called common": ("shared/common/x.py", "", "'common' says nothing"),
    "a test that sleeps": ("tests/test_x.py", "import time\ntime.sleep(1)\n", "tests/test_x.py:2: a test sleeps"),
    "a test that awaits sleep": ("tests/test_x.py", "async def f():\n    await asyncio.sleep(0.01)\n", "a test sleeps"),
    "a sleep with a noqa for a reason": ("tests/test_x.py", "time.sleep(1)  # noqa: ASYNC251\n", "a test sleeps"),
    "a sleep with a reason": ("tests/test_x.py", "time.sleep(1)  # the clock itself is tested\n", None),
    "a loop that polls": ("tests/test_x.py", "while not done():\n    time.sleep(0.01)\n", None),
    "a loop that sleeps long": ("tests/test_x.py", "while not done():\n    time.sleep(1)\n", "a test sleeps"),
    "a turn of the loop": ("tests/test_x.py", "async def f():\n    await asyncio.sleep(0)\n", None),
    "a service that sleeps": ("executor/x.py", "async def f():\n    await asyncio.sleep(1)\n", None),
    "a dropped task": ("executor/x.py", "import asyncio\nasyncio.create_task(f())\n", "belongs to nobody"),
    "a dropped future": ("executor/x.py", "from asyncio import ensure_future\nensure_future(f())\n", "belongs to nobody"),
    "a dropped task of the loop": ("executor/x.py", "asyncio.get_running_loop().create_task(f())\n", "belongs to nobody"),
    "a task that is kept": ("executor/x.py", "task = asyncio.create_task(f())\n", None),
    "a task of a group": ("executor/x.py", "tasks.create_task(f())\n", None),
    "a provider that is asked for": (
        "control_plane/x.py",
        "if p == 'codex':\n    pass\n",
        "asks for the provider 'codex'",
    ),
    "a provider in a list": ("control_plane/x.py", "x = p in ('a', 'claude-code')\n", "asks for the provider 'claude-code'"),
    "a provider of the enum": ("executor/x.py", "x = p is Provider.OPENCODE\n", "asks for the provider Provider.OPENCODE"),
    "a provider in a match": ("executor/x.py", "match p:\n    case 'qwen':\n        pass\n", "asks for the provider 'qwen'"),
    "a provider in an adapter": ("executor/adapters/x.py", "x = p == 'codex'\n", None),
    "a provider as a row": ("control_plane/x.py", "TABLE = {'codex': 1}\n", None),
    "a shared module for one": ("shared/x.py", "", "shared.x is reached by nobody"),
}


@pytest.mark.parametrize(("name", "text", "told"), OWN_RULES.values(), ids=OWN_RULES.keys())
def test_the_own_rules_see(tmp_path: Path, name: str, text: str, told: str | None) -> None:
    ast.parse(text)
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text(text, "utf-8")
    found = findings(tmp_path)
    if told is None:
        assert found == []
    else:
        assert any(told in finding for finding in found), found


def test_a_shared_module_counts_as_shared_through_another_one(tmp_path: Path) -> None:
    for name, text in {
        "executor/a.py": "from shared.x import X\n",
        "control_plane/b.py": "import shared.y\n",
        "shared/x.py": "",
        "shared/y.py": "from shared import x\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    assert findings(tmp_path) == ["shared.y is reached by control_plane: shared is for two services or more"]


def test_the_command_prints_what_it_found_and_fails(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "misc.py").write_text("", "utf-8")
    command = [sys.executable, str(ROOT / "scripts" / "lint_architecture.py"), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout) == (1, "scripts/misc.py: 'misc' says nothing about what is inside\n")
