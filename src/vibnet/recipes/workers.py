"""Many runs at a time, a process each."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from vibnet.errors import ArtefactError, ConfigError, VibnetError
from vibnet.recipes.grid import Point, claim, done, make


def run_all(
    points: Sequence[Point],
    out: Path,
    *,
    jobs: int = 1,
    threads: int = 1,
    command: str = "",
    on_done: Callable[[Point], None] = lambda _point: None,
    on_failed: Callable[[Point, str], None] = lambda _point, _text: None,
) -> int:
    """Make all points, some at a time, a process each; controls after all runs.

    A point that is over is not made again; one that fails does not stop the others. Whatever ends
    this call ends its processes; checkpoints stay, and the same call goes on.

    Args:
        points: what to make.
        out: the folder of their folders.
        jobs: processes at a time.
        threads: of PyTorch, in each.
        command: that repeats it all, for the records.
        on_done: called with every point that is over.
        on_failed: called with a point and what went wrong.

    Returns:
        How many failed.

    Raises:
        ConfigError: no process, or a folder that holds something else.
    """
    if jobs < 1 or threads < 1:
        raise ConfigError(f"jobs and threads must be at least 1, got {jobs} and {threads}.")
    claim(points, out)
    failed: set[str] = set()
    for wave in ([p for p in points if not p.control], [p for p in points if p.control]):
        ready = []
        for point in wave:
            try:
                over = done(point, out) is not None
            except ArtefactError as error:
                over, text = False, str(error)
            else:
                text = f"{point.of} has failed, which it starts from." if point.of in failed else ""
            if text:
                failed.add(point.name)
                on_failed(point, text)
            elif over:
                on_done(point)
            else:
                ready.append(point)
        fixed = out, threads, command
        failed |= _wave(ready, jobs, fixed, on_done, on_failed)
    return len(failed)


def _wave(
    points: list[Point],
    jobs: int,
    fixed: tuple[Path, int, str],
    on_done: Callable[[Point], None],
    on_failed: Callable[[Point, str], None],
) -> set[str]:
    """Make points that do not depend on each other; the names of those that failed."""
    context = multiprocessing.get_context("spawn")
    waiting, failed = list(points), set()
    living: dict[int, tuple[SpawnProcess, Connection, Point]] = {}
    try:
        while waiting or living:
            while waiting and len(living) < jobs:
                point = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(point, *fixed, theirs))
                process.start()
                theirs.close()
                living[process.sentinel] = process, ours, point
            for sentinel in wait(list(living)):
                assert isinstance(sentinel, int)
                process, ours, point = living.pop(sentinel)
                process.join()
                text = _heard(ours)
                if process.exitcode == 0:
                    on_done(point)
                else:
                    failed.add(point.name)
                    on_failed(point, text or f"its process ended with {process.exitcode}.")
    finally:
        for process, _, _ in living.values():
            process.terminate()
        for process, _, _ in living.values():
            process.join()
    return failed


def _heard(pipe: Connection) -> str:
    """What a process said before it ended."""
    try:
        return str(pipe.recv()) if pipe.poll() else ""
    except EOFError:
        return ""
    finally:
        pipe.close()


def _child(point: Point, out: Path, threads: int, command: str, tell: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        make(point, out, command)
    except (VibnetError, OSError, RuntimeError) as error:
        tell.send(f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise SystemExit(2) from None
