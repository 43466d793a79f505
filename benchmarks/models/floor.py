"""What a forward on tensors without storage takes before anybody looks at it: the least of a plan.

    python benchmarks/models/floor.py densenet121

`vibnet.attach` sees a model in both modes and tries at least one cut of it: three such forwards.
Processor seconds of one thread, the least of five.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from catalog import MODELS
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import host

import vibnet

RESULTS = Path(__file__).parent / "results" / "large"


def least(work: Callable[[], Any], times: int = 5) -> float:
    """The least processor seconds of some calls, after a first one."""
    work()
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Read the name and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    name = parser.parse_args().name
    facts, entry = host(1), MODELS[name]
    torch.manual_seed(0)
    model, example = entry.make(), entry.example(2)
    seconds = {
        "attach": least(lambda: vibnet.attach(model, example)),
        "copy": least(lambda: copy.deepcopy(model)),
    }
    with FakeTensorMode():
        empty, x = entry.make(), entry.example(2)
        seconds["forward in training"] = least(lambda: empty.train()(x))
        seconds["forward in evaluation"] = least(lambda: empty.eval()(x))
    body = {"model": name, "seconds": seconds, "host": facts}
    (RESULTS / f"floor-{name}.json").write_text(json.dumps(body, indent=1) + "\n")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
