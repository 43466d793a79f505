"""Run a recipe again and again, killed at chosen moments, until it is done; tell what was hit.

Used as a program, for it forks: `python killing.py FOLDER SEED` writes FOLDER/killed.json.
"""

import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

SETTINGS = {"dense_epochs": 3, "gate_epochs": 12, "tune_epochs": 2, "batch": 128}
SETTINGS |= {"gate_lr": 0.05, "gamma": 3e-3, "patience": 1}
NOWHERE, WRITING, SHRINKING = 0, 1, 2
AIMS = [NOWHERE] * 10 + [WRITING] * 6 + [SHRINKING] * 4  # 20 moments


# What the two processes tell each other, byte by byte of shared memory.
NOW, AIM, TURN, THERE, GO = range(5)


def marked(mark, what, function):
    """The function, with a note while it runs; at the aimed turn it waits for the killer."""

    def inner(*args, **kwargs):
        mark[NOW] = what
        if mark[AIM] == what and mark[TURN]:
            mark[TURN] -= 1
            if not mark[TURN]:
                mark[THERE] = 1
                while not mark[GO]:
                    time.sleep(0)
        try:
            return function(*args, **kwargs)
        finally:
            mark[NOW] = NOWHERE

    return inner


def once(folder, mark=None):
    """The recipe, from the newest checkpoint on."""
    from vibnet.recipes.catalog import recipe
    from vibnet.recipes.run import job, run
    from vibnet.surgery import files
    from vibnet.train import checkpoint, phases

    if mark is not None:
        checkpoint.write = marked(mark, WRITING, files.write)
        phases.State.without = marked(mark, SHRINKING, phases.State.without)
    run.__globals__["latency"] = lambda *_: 0.0  # it takes seconds and is under "timing"
    run(job(recipe("digits-mlp"), SETTINGS), folder, resume=True, save_every=0.0)


def child(folder, mark):
    """A process of its own that runs the recipe."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        once(folder, mark)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def killed(folder, mark, aim, chance, length):
    """Start the recipe and kill it; where it was hit, or None where it was done before."""
    mark[:5] = bytes([NOWHERE, aim, chance.randint(1, 6), 0, 0])
    pid, begin = child(folder, mark), time.monotonic()
    moment = chance.uniform(0, length)  # of the whole run, for a kill that aims at nothing
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status):
                raise RuntimeError("the run failed by itself")
            return None
        if aim == NOWHERE and time.monotonic() - begin >= moment:
            break
        if mark[THERE]:
            mark[GO] = 1
            time.sleep(chance.uniform(0, 1e-3))
            break
        time.sleep(2e-4)
    os.kill(pid, signal.SIGSTOP)  # so that the note is of the moment of the kill
    where = mark[NOW]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return where


def main(folder, seed):
    """Undisturbed in one folder; killed 20 times and then left alone in others."""
    import sklearn.datasets  # noqa: F401 - imported once, before the forks

    import vibnet.recipes.run  # noqa: F401

    mark, chance = mmap.mmap(-1, 4096), random.Random(seed)
    begin = time.monotonic()
    os.waitpid(child(folder / "straight", None), 0)
    length = time.monotonic() - begin
    hits, number = [], 0
    for aim in chance.sample(AIMS, len(AIMS)):
        hit = killed(folder / f"killed{number}", mark, aim, chance, length)
        for share in (0.9, 0.5, 0.2):  # of a machine that has less to do by now
            if hit is None:  # it came to its end first: the next is killed in a fresh folder
                number += 1
                hit = killed(folder / f"killed{number}", mark, aim, chance, share * length)
        hits.append([aim, hit, number])
    for k in range(number + 1):
        os.waitpid(child(folder / f"killed{k}", None), 0)
    (folder / "killed.json").write_text(json.dumps({"hits": hits, "seconds": length}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
