"""Records a case of the conformance suite with a real engine against the model stub, and tells how it differs from the kept one.

Used when an engine's version is raised, or when a new engine comes. Texts, ids, times, order, and how often a line
comes are no difference; kinds of lines and their fields are.

exit status:
  0   nothing differs in substance, or there was nothing to compare with
  1   something does, or the case did not come out as every engine's must
  64  the arguments are wrong
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.arguments import Parser  # noqa: E402
from shared.contracts.providers import ALIASES, Provider  # noqa: E402
from tests.conformance.cases import Case  # noqa: E402
from tests.conformance.engines import ENGINES, Engine  # noqa: E402
from tests.conformance.recorder import Recording, compared, record  # noqa: E402
from tests.conformance.suite import cases_of, judge  # noqa: E402

RECORDINGS = ROOT / "tests" / "recordings"
SECONDS = 180


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("engine", metavar="ENGINE", help="a provider, or a short name of one")
    parser.add_argument("case", metavar="CASE", nargs="?", help="a case of tests/conformance; without one they are listed")
    parser.add_argument("--out", type=Path, help="write the recording here")
    parser.add_argument("--keep", action="store_true", help="keep it under tests/recordings/conformance")
    arguments = parser.parse_args()
    engine = _engine(parser, arguments.engine)
    cases = {case.name: case for case in cases_of(engine)}
    if arguments.case is None:
        for name in cases:
            print(f"{name:<28} {engine.recordings.get(name, '-')}")
        return 0
    if arguments.case not in cases:
        parser.error(f"{engine.provider} has no case {arguments.case!r}; it has {', '.join(cases)}")
    with tempfile.TemporaryDirectory(prefix="runyard-record-") as folder:
        try:
            recording = asyncio.run(asyncio.wait_for(record(engine, cases[arguments.case], Path(folder)), SECONDS))
        except LookupError as error:
            parser.error(str(error))
    verdict = _tell(engine, cases[arguments.case], recording)
    for place in (arguments.out, _own(engine, arguments.case) if arguments.keep else None):
        if place is not None:
            recording.write(place)
            print(f"written to {place}")
    return verdict


def _engine(parser: Parser, name: str) -> Engine:
    provider = ALIASES.get(name) or next((each for each in Provider if each.value == name), None)
    engine = ENGINES.get(provider) if provider is not None else None
    if engine is None or not engine.can_be_played or engine.speaks != "marker":
        known = [each.provider.value for each in ENGINES.values() if each.can_be_played and each.speaks == "marker"]
        parser.error(f"there is nothing to record of {name!r}; known: {', '.join(known)}")
    return engine


def _own(engine: Engine, case: str) -> Path:
    return RECORDINGS / "conformance" / engine.provider / case.replace(":", "").replace(" ", "-")


def _kept(engine: Engine, case: str) -> Path | None:
    """What was recorded by this script, else the study's recording."""
    named = engine.recordings.get(case)
    return own if (own := _own(engine, case)).exists() else RECORDINGS / named if named else None


def _tell(engine: Engine, case: Case, recording: Recording) -> int:
    is_right = True
    try:
        judge(case, recording.seen, engine)
    except (AssertionError, LookupError) as error:
        is_right = False
        ended = f"{recording.seen.outcome}, {recording.seen.error_code}"
        print(f"! not as every engine's must be ({ended}): {error or 'see tests/conformance/cases.py'}")
    kept = _kept(engine, case.name)
    if kept is None:
        print("nothing is kept to compare it with")
        return 0 if is_right else 1
    wrong, more = compared(kept, recording)
    for text in wrong:
        print(f"! {text}")
    for text in more:
        print(f"  {text}")
    print(f"{len(wrong)} differences in substance from {kept.relative_to(RECORDINGS)}, {len(more)} notes")
    return 1 if wrong or not is_right else 0


if __name__ == "__main__":
    sys.exit(main())
