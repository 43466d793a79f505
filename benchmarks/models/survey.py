"""Every model of the catalogue by vibnet, and by Torch-Pruning without hints; one JSON a model.

    python benchmarks/models/survey.py                   # all that are not there yet
    python benchmarks/models/survey.py resnet18 hf_bert  # these, anew
    python benchmarks/models/survey.py --quick           # no latencies, no ONNX

Every measurement runs in a process of its own, with a time limit. `table.py` makes the tables.
"""

import argparse
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from catalog import MODELS
from common import host

RESULTS = Path(__file__).parent / "results"
LIMITS = {"ours": 900, "theirs": 120}
MARK = "@@"


def work(tool: str, name: str, quick: bool) -> None:
    """Measure in this process, and print the figures as JSON."""
    warnings.simplefilter("ignore")
    facts = host(1)
    if tool == "ours":
        from ours import measure as ours

        body = ours(MODELS[name], quick)
    else:
        from theirs import measure as theirs

        body = theirs(MODELS[name])
    print(MARK + json.dumps(body | {"host": facts}))


def measured(tool: str, name: str, quick: bool) -> dict[str, Any]:
    """The figures of one tool on one model, from a process of its own."""
    command = [sys.executable, __file__, name, "--tool", tool, *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMITS[tool], check=False
        )
    except subprocess.TimeoutExpired:
        return {"verdict": f"no answer in {LIMITS[tool]} s"}
    found = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not found:
        return {"verdict": "crashes", "error": done.stderr.strip().splitlines()[-1:]}
    body: dict[str, Any] = json.loads(found[-1].removeprefix(MARK))
    return body


def main() -> None:
    """Read the arguments and measure, one model after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--tool", choices=tuple(LIMITS), help="measure here, and print")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    if asked.tool:
        work(asked.tool, asked.names[0], asked.quick)
        return
    RESULTS.mkdir(exist_ok=True)
    for name in asked.names or MODELS:
        target = RESULTS / f"{name}.json"
        if target.exists() and not asked.names:
            continue
        tools = [tool for tool in LIMITS if tool == "ours" or not MODELS[name].options]
        body = {tool: measured(tool, name, asked.quick) for tool in tools}
        target.write_text(json.dumps({"kind": MODELS[name].kind, **body}, indent=1) + "\n")
        law = body["ours"].get("law", {})
        print(name, law.get("difference"), body.get("theirs", {}).get("verdict"), flush=True)


if __name__ == "__main__":
    main()
