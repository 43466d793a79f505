"""Points of a grid on the digits, as short as can be, and folders that look finished."""

import json

from vibnet.recipes.grid import RUN, Point

SHORT = {"dense_epochs": "1", "gate_epochs": "2", "gate_lr": "0.1"}
WHOLE = {"done": True, "test": {}, "ratios": {}, "settings": {}, "notes": {}}


def point(name="a", **given):
    return Point(name, "digits-mlp", {**SHORT, **given.pop("changes", {})}, **given)


def finished(folder, name="a"):
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / RUN).write_text(json.dumps(WHOLE))
