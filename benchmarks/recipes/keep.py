"""Keep the records of a reproduced table's, or a sweep's, finished runs among the results.

    vibnet reproduce table1 --out runs/table1
    python benchmarks/recipes/keep.py table1 runs/table1
    vibnet sweep table1-vibnet --final --gammas 1e-4,2e-4 --out runs/frontier1
    python benchmarks/recipes/keep.py frontier1 runs/frontier1

`vibnet reproduce table1 --out benchmarks/recipes/results/table1 --document docs/tables.md` goes
on from what is there and writes the table. Of every run the last epoch is kept, not all; controls
need the checkpoints of a run, which are not kept. Of a sweep its frontier is kept too. What is
damaged, or of another recipe, is named and not kept.
"""

import argparse
import json
import shutil
from pathlib import Path

from vibnet.recipes.grid import POINT, RUN
from vibnet.report.frontier import RECORD

RESULTS = Path(__file__).parent / "results"
RECIPES = {f"{kind}{n}": f"table{n}-vibnet" for kind in ("table", "frontier") for n in (1, 2)}


def keep(table: str, out: Path) -> int:
    """Copy what is over, in short; how many records."""
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
        if recipe != RECIPES[table]:
            print(f"{folder}: not kept, a run of {recipe}")
            continue
        if not over:
            continue
        body["history"] = body.get("history", [])[-1:]
        body.pop("snr", None)
        target = RESULTS / table / folder.name
        target.mkdir(parents=True, exist_ok=True)
        (target / RUN).write_text(json.dumps(body, indent=1) + "\n")
        shutil.copy(folder / POINT, target / POINT)
        count += 1
    if count and (out / RECORD).exists():
        shutil.copy(out / RECORD, RESULTS / table / RECORD)
    return count


def main() -> None:
    """Read the arguments and copy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=RECIPES)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    print(keep(asked.table, asked.out), "records kept")


if __name__ == "__main__":
    main()
