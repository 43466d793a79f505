"""Keep the records of a reproduced table's, or a sweep's, finished runs among the results.

    vibnet reproduce table1 --out runs/table1
    python benchmarks/recipes/keep.py table1 runs/table1
    vibnet sweep table1-vibnet --final --gammas 1e-4,2e-4 --out runs/frontier1
    python benchmarks/recipes/keep.py frontier1 runs/frontier1
    vibnet sweep table2-vibnet --final --gammas 1e-5 --weights fc1=8 --out runs/frontier2-wide
    python benchmarks/recipes/keep.py frontier2-wide runs/frontier2-wide

`vibnet reproduce table1 --out benchmarks/recipes/results/table1 --document docs/tables.md` goes
on from what is there and writes the table. Of every run the last epoch is kept, not all; controls
need the checkpoints of a run, which are not kept. Of a sweep its frontier is kept too. What is
damaged, of another recipe, or of other settings than the record that is there, is named and not
kept.
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from vibnet.recipes.grid import POINT, RUN
from vibnet.report.frontier import RECORD

RESULTS = Path(__file__).parent / "results"
NAMES = re.compile(r"(?:table([12])|frontier([12])(?:-[a-z]+)?)")


def keep(table: str, out: Path) -> int:
    """Copy what is over, in short; how many records."""
    named = NAMES.fullmatch(table)
    if not named:
        raise SystemExit(
            f"{table} is none of table1, table2, frontier1, frontier2, frontier1-NAME ..."
        )
    wanted = f"table{named[1] or named[2]}-vibnet"
    if out.resolve() == (RESULTS / table).resolve():
        raise SystemExit(f"{out} is where records are kept: name the folder of the runs.")
    count = 0
    for folder in sorted(path.parent for path in out.glob(f"*/{RUN}")):
        try:
            body = json.loads((folder / RUN).read_text())
            recipe = json.loads((folder / POINT).read_text())["recipe"]
            over = body["done"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{folder}: not kept, damaged ({error!r})")
            continue
        if recipe != wanted:
            print(f"{folder}: not kept, a run of {recipe}")
            continue
        if not over:
            continue
        body["history"] = body.get("history", [])[-1:]
        body.pop("snr", None)
        target = RESULTS / table / folder.name
        if other := _others(body, target / RUN):
            print(f"{folder}: not kept, the record there has other {', '.join(other)}")
            continue
        target.mkdir(parents=True, exist_ok=True)
        (target / RUN).write_text(json.dumps(body, indent=1) + "\n")
        shutil.copy(folder / POINT, target / POINT)
        count += 1
    if count and (out / RECORD).exists():
        shutil.copy(out / RECORD, RESULTS / table / RECORD)
    return count


def _others(body: dict[str, Any], before: Path) -> list[str]:
    """The settings in which a record differs from the one that it would replace."""
    if not before.exists():
        return []
    kept = json.loads(before.read_text()).get("settings", {})
    now = body.get("settings", {})
    return [name for name in kept | now if kept.get(name) != now.get(name)]


def main() -> None:
    """Read the arguments and copy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", help="table1, frontier1, frontier1-NAME ...")
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    print(keep(asked.table, asked.out), "records kept")


if __name__ == "__main__":
    main()
