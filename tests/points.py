"""Points of a grid on the digits, as short as can be, and folders that look finished."""

import json

from vibnet.recipes.grid import RUN, Point

SHORT = {"dense_epochs": "1", "gate_epochs": "2", "gate_lr": "0.1"}
ERRORS = {"small": 1.0, "dense": 2.0}
WHOLE = {
    "done": True,
    "test": ERRORS,
    "validation": ERRORS,
    "ratios": {"r_W": 5.0, "macs": 1000, "r_N": 20.0},
    "before": {"weights": 100},
    "sites": [{"name": "fc1", "after": 3}],
    "timing": {"cpu_seconds": 1.0},
    "settings": {},
    "notes": {},
}


def point(name="a", **given):
    return Point(name, "digits-mlp", {**SHORT, **given.pop("changes", {})}, **given)


def finished(folder, name="a"):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / RUN).write_text(json.dumps(WHOLE))
