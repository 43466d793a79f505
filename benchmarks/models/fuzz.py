"""Law 1 on many random networks, in parts of 100; a part that is there is not made again.

    python benchmarks/models/fuzz.py --networks 20000 --jobs 2   # make fuzz
    python benchmarks/models/fuzz.py --seed 4711                 # one network, with its program

Every network is gated, half of its units are closed at random, it is cut, and what the small one
answers is compared with what the gated one does; every fifth is cut by whole branches too. The
programs and the law are those of the tests.
"""

import argparse
import hashlib
import json
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from common import host
from laws import law_of_branches, law_one
from random_networks import build, random_spec
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "fuzz.json"
PART, BRANCHES = 100, 5
REFUSED = "torch refuses the program"


class _Recorded(TorchDispatchMode):
    """Operations as any recorder sees them: torch makes some of views then, and writes fewer."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def one(seed: int) -> str:
    """What a network came to: "exact", "refused or dead", and whether branches went.

    Raises:
        Exception: whatever is not exact and no refusal by name.
    """
    spec = random_spec(random.Random(seed))
    try:
        model, example = build(spec)
        for mode in (True, False):
            with _Recorded():
                model.train(mode)(*example)
    except RuntimeError:  # as a write into what overlaps itself, or into a parameter
        return REFUSED
    found = law_one(*build(spec), seed=seed)
    gone = 0
    if seed % BRANCHES == 0:
        gone = law_of_branches(*build(spec), seed=seed) or 0
    return ("exact" if found is not None else "no gate, or too dead to count") + (
        ", branches" if gone else ""
    )


def part(first: int) -> dict[str, Any]:
    """The networks of one part: how many came to what, and those that failed, with their errors."""
    warnings.simplefilter("ignore")
    facts, counts, failed = host(1), Counter[str](), {}
    for seed in range(first, first + PART):
        try:
            counts[one(seed)] += 1
        except Exception as error:
            failed[str(seed)] = f"{type(error).__name__}: {str(error)[:300]}"
    versions = facts["versions"]
    return {"counts": dict(counts), "failed": failed, "engine": engine(), "versions": versions}


def engine() -> str:
    """A hash of the code that decides and cuts."""
    sha = hashlib.sha256()
    for folder in ("graph", "layers", "surgery"):
        for path in sorted((ROOT / "src" / "vibnet" / folder).rglob("*.py")):
            sha.update(path.read_bytes())
    return sha.hexdigest()[:12]


def told(parts: Iterable[dict[str, Any]]) -> str:
    """A summary of parts."""
    counts, failed = Counter[str](), {}
    for body in parts:
        counts.update(body["counts"])
        failed |= body["failed"]
    lines = [f"{sum(counts.values()) + len(failed)} networks, {len(failed)} failed"]
    lines += [f"  {count:6} {name}" for name, count in counts.most_common()]
    script = Path(__file__).relative_to(ROOT)
    lines += [f"  {script} --seed {seed}: {why}" for seed, why in failed.items()]
    return "\n".join(lines)


def main() -> None:
    """Read the arguments; run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=1, help="processes, with a thread each")
    parser.add_argument("--anew", action="store_true", help="also what another engine has made")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.seed is not None:
        try:
            print(verdict := one(asked.seed))
            if verdict != REFUSED:
                print(build(random_spec(random.Random(asked.seed)))[0].source())
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        return
    found: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    now = engine()
    missing = [
        first
        for first in range(0, asked.networks, PART)
        if str(first) not in found or (asked.anew and found[str(first)]["engine"] != now)
    ]
    with ProcessPoolExecutor(asked.jobs, get_context("spawn")) as pool:
        for first, body in zip(missing, pool.map(part, missing), strict=True):
            found[str(first)] = body
            ordered = dict(sorted(found.items(), key=lambda item: int(item[0])))
            asked.out.parent.mkdir(exist_ok=True)
            asked.out.write_text(json.dumps(ordered, indent=1) + "\n")
            print(first + PART, body["counts"], body["failed"] or "", flush=True)
    print(told(found.values()))
    sys.exit(any(body["failed"] for body in found.values()))


if __name__ == "__main__":
    main()
