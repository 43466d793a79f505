"""Makes the tables of `docs/models.md` from the results of `survey.py`.

python benchmarks/models/table.py
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from catalog import MODELS

from vibnet.report.marks import table
from vibnet.report.tables import check_place

RESULTS = Path(__file__).parent / "results"
KINDS = ("torchvision", "transformers", "timm", "dense", "recurrent")
FILES = ("files", "files_verified", "middle", "middle_verified")  # of large.py
DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def percent(share: float) -> str:
    """A share in percent, never rounded up to 100."""
    return f"{int(1000 * share) / 10:.1f}"


def thousands(number: float) -> str:
    """A number of weights or multiply-adds with its unit."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def ours(name: str, body: dict[str, Any]) -> list[str]:
    """One row of what vibnet does."""
    if "verdict" in body:
        return [name, body["verdict"], *[""] * 8]
    law, seconds = body.get("law"), body["seconds"]
    if law is None:
        return [name, "refused: no gate", *[""] * 8]
    counts = law["live"] >= 1e-3 and min(law["swapped"], law["opened"]) >= 1e-6
    a, b, ratios = body["before"], body["after"], ""
    if "latency" in body:
        ratios = " / ".join(f"{small / whole:.2f}" for whole, small in body["latency"].values())
    onnx = body.get("onnx", {})
    return [
        name,
        f"{body['units']} in {body['sites']}",
        percent(body["cuttable"]["macs"]),
        f"{seconds.get('attach', seconds['plan']):.1f} / {seconds['prune']:.2f}",
        f"{law['difference']:.0e}" if counts else "too dead to count",
        f"{law['live']:.0e}, {law['swapped']:.0e}, {law['opened']:.0e}",
        *(f"{thousands(a[n])} → {thousands(b[n])}" for n in ("parameters", "macs")),
        ratios,
        f"{onnx['difference']:.0e}" if "difference" in onnx else onnx.get("refused", "")[:40],
    ]


HEAD = (
    "model",
    "units in sites",
    "cuttable MACs %",
    "attach / prune s",
    "law 1",
    "lively, swapped, opened",
    "parameters",
    "MACs",
    "latency ratio, batch 1 / 32",
    "ONNX",
)


LARGE = ("what", "parameters", "seconds", "largest memory, GiB", "")


def large() -> list[list[str]]:
    """The rows of models that do not fit into memory."""
    plan = json.loads((RESULTS / "large" / "plan.json").read_text())
    rows = [
        [
            "a plan of a Llama on the meta device",
            thousands(plan["parameters"]),
            f"{plan['seconds']:.1f}",
            f"{plan['memory_GiB']:.2f}",
            f"{plan['units']} units in {plan['sites']} sites, "
            f"{percent(plan['cuttable']['macs'])} % of the multiply-adds",
        ]
    ]
    for name in FILES:
        body = json.loads((RESULTS / "large" / f"{name}.json").read_text())
        before, after = body["files_GiB"]
        what = (
            f"{before:.2f} → {after:.2f} GiB; the largest file has {body['largest_file_GiB']:.2f}"
        )
        if body["modules"]:
            what = f"{body['modules']} modules moved by {body['difference']:.0e} of their scale"
        rows.append(
            [
                f"half of all units out of a Llama's 8 files{', verified' * bool(body['modules'])}",
                f"{thousands(body['parameters'][0])} → {thousands(body['parameters'][1])}",
                f"{body['seconds']:.1f}",
                f"{body['memory_GiB']:.2f}",
                what,
            ]
        )
    return rows


FUZZ = ("what came of a network", "networks")


def fuzzed() -> list[list[str]]:
    """How many random networks came to what."""
    parts = json.loads((RESULTS / "fuzz.json").read_text()).values()
    counts = Counter[str]()
    for part in parts:
        counts.update(part["counts"])
        counts["another answer, or a crash"] += len(part["failed"])
    return [
        [name, f"{count:,}"] for name, count in [*counts.most_common(), ("all", counts.total())]
    ]


PEERS = (
    "model",
    "Torch-Pruning, no hints",
    "modelopt, smallest subnet",
    "vibnet, no hints",
    "its graph, s",
    "its space, s",
    "attach, s",
)


def peers(name: str, body: dict[str, Any]) -> list[str]:
    """One row of what the other tools do, beside vibnet."""

    def seconds(tool: str) -> str:
        found = body.get(tool, {}).get("seconds", {}).get("attach")
        return "" if found is None else f"{found:.2f}"

    return [
        name,
        body["theirs"].get("verdict", ""),
        smallest(body.get("modelopt", {})),
        "exact" if body["ours"].get("law", {}).get("difference", 1) < 1e-10 else "see above",
        *(seconds(tool) for tool in ("theirs", "modelopt", "ours")),
    ]


def smallest(body: dict[str, Any]) -> str:
    """What modelopt's smallest subnet is worth."""
    if "exact" not in body:
        return str(body.get("verdict", ""))
    before, after = map(thousands, body["parameters"])
    return f"{body['exact']}, {body['knobs']} knobs, {before} → {after}"


def put(name: str, head: tuple[str, ...], rows: list[list[str]]) -> None:
    """Put a table between its marks in the document."""
    before, _, after = check_place(DOCUMENT, name)
    DOCUMENT.write_text(f"{before}\n\n{table(head, rows)}\n{after}")


def main() -> None:
    """Write the tables into the document."""
    paths = {name: RESULTS / f"{name}.json" for name in MODELS}
    found = {n: json.loads(path.read_text()) for n, path in paths.items() if path.exists()}
    for kind in KINDS:
        rows = [ours(n, body["ours"]) for n, body in found.items() if body["kind"] == kind]
        put(kind, HEAD, rows)
    among = {n: body for n, body in found.items() if body["kind"] in KINDS and "theirs" in body}
    put("peers", PEERS, [peers(name, body) for name, body in among.items()])
    put("large", LARGE, large())
    put("fuzz", FUZZ, fuzzed())
    print(f"written: {DOCUMENT.relative_to(DOCUMENT.parents[1])}, {len(found)} models")


if __name__ == "__main__":
    main()
