"""Every model of the catalogue by vibnet, and by other tools without hints; one JSON a model.

    python benchmarks/models/survey.py                   # all that are not there yet
    python benchmarks/models/survey.py resnet18 hf_bert  # these, anew
    python benchmarks/models/survey.py --quick           # no latencies, no ONNX: those there stay
    python benchmarks/models/survey.py --only ours hf_t5    # one tool; the others' figures stay
    python benchmarks/models/survey.py --only modelopt --kind torchvision --python PATH

NVIDIA's modelopt runs only where it is asked for, for it lives in an environment of its own:
`modelopt_fastnas.py` says how to make it; PATH is that one's Python.

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
SLOW = ("latency", "onnx")  # they stay in a quick run that ends with the same small model
LIMITS = {"ours": 900, "theirs": 120, "modelopt": 1800}  # preparations included
USUAL = ("ours", "theirs")
MARK = "@@"


def work(tool: str, name: str, quick: bool) -> None:
    """Measure in this process, and print the figures as JSON."""
    warnings.simplefilter("ignore")
    facts = host(1)
    if tool == "ours":
        from ours import measure as ours

        body = ours(MODELS[name], quick)
    elif tool == "modelopt":
        from modelopt_fastnas import measure as modelopt

        body = modelopt(MODELS[name])
    else:
        from theirs import measure as theirs

        body = theirs(MODELS[name])
    print(MARK + json.dumps(body | {"host": facts}))


def measured(tool: str, name: str, quick: bool, python: str) -> dict[str, Any]:
    """The figures of one tool on one model, from a process of its own."""
    command = [python, __file__, name, "--tool", tool, *(["--quick"] if quick else [])]
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


def kept(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The slow figures that stay: those of a small model of the same costs."""
    same = (old.get("before"), old.get("after")) == (new.get("before"), new.get("after"))
    return {key: old[key] for key in SLOW if same and key in old}


def main() -> None:
    """Read the arguments and measure, one model after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--tool", choices=tuple(LIMITS), help="measure here, and print")
    parser.add_argument("--only", choices=tuple(LIMITS), help="this tool; others' figures stay")
    parser.add_argument("--kind", choices=sorted({entry.kind for entry in MODELS.values()}))
    parser.add_argument("--python", default=sys.executable, help="of the tool's environment")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    if asked.tool:
        work(asked.tool, asked.names[0], asked.quick)
        return
    RESULTS.mkdir(exist_ok=True)
    tools = (asked.only,) if asked.only else USUAL
    for name in asked.names or MODELS:
        entry, target = MODELS[name], RESULTS / f"{name}.json"
        if asked.kind not in {None, entry.kind}:
            continue
        body = json.loads(target.read_text()) if target.exists() else {"kind": entry.kind}
        for tool in tools:
            left_out = tool != "ours" and (entry.options or entry.by_plan)
            if left_out or (tool in body and not asked.names):
                continue
            old, new = body.get(tool, {}), measured(tool, name, asked.quick, asked.python)
            body[tool] = new | (kept(old, new) if asked.quick else {})
            target.write_text(json.dumps(body, indent=1) + "\n")
            law = body[tool].get("law", {})
            print(name, tool, body[tool].get("verdict", law.get("difference")), flush=True)


if __name__ == "__main__":
    main()
