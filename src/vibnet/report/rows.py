"""The figures before and after as a person reads them, in the terminal and on the page."""

from dataclasses import dataclass
from typing import Any

from vibnet.report.record import Recorded
from vibnet.zoo.data import SETS


@dataclass(frozen=True)
class Row:
    """One figure of both networks.

    Attributes:
        name: what is counted, with its unit.
        dense: of the dense network.
        small: of the small one.
        change: how they compare.
    """

    name: str
    dense: str
    small: str
    change: str


def rows(recorded: Recorded) -> list[Row]:
    """The table before and after of a run that is over."""
    run = recorded.run
    before, after = run["before"], run["after"]
    timing, out = run["timing"], []
    counts = (
        ("weights (r_W)", "weights"),
        ("multiply-adds", "macs"),
        ("multiply-adds of attention", "attention_macs"),
        ("neurons (r_N)", "neurons"),
    )
    for name, key in counts:
        if before[key]:
            change = shrunk(after[key] / before[key])
            out.append(Row(name, f"{before[key]:,}", f"{after[key]:,}", change))
    dense, small = before["peak_memory"], after["peak_memory"]
    out.append(Row("memory for one input", size(dense), size(small), shrunk(small / dense)))
    for batch in ("1", "32"):
        dense, small = (timing.get(f"latency_{x}", {}).get(batch) for x in ("dense", "small"))
        if dense and small:
            name = f"latency of {batch}"
            out.append(Row(name, duration(dense), duration(small), shrunk(small / dense)))
    where = "validation" if recorded.held_out else "training images"
    out.append(_metric(f"{where} {run['metric']}", run["validation"]))
    out.append(_metric(f"test {run['metric']}", run["test"]))
    return out


def _metric(name: str, values: dict[str, float]) -> Row:
    dense, small = values["dense"], values["small"]
    change = "the same" if small == dense else f"{small - dense:+.2f}"
    return Row(name, number(dense), number(small), change)


def shrunk(share: float) -> str:
    """A share in percent, and how many times smaller that is.

    >>> shrunk(0.0701), shrunk(1.0), shrunk(1.25)
    ('7.0 %, 14.3 times less', '100.0 %', '125.0 %')
    """
    text = f"{100 * share:.1f} %"
    return f"{text}, {1 / share:.1f} times less" if 0 < share < 0.95 else text


def number(value: float) -> str:
    """A metric with a sensible number of digits.

    >>> number(2.6666), number(0.00123)
    ('2.67', '0.00123')
    """
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds in a unit that fits.

    >>> duration(1.9e-5), duration(0.0123), duration(2.5)
    ('19.0 us', '12.3 ms', '2.5 s')
    """
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.1f} {unit}"
    return f"{seconds:.1f} s"


def size(count: int) -> str:
    """Bytes in a unit that fits, in powers of 1024.

    >>> size(900), size(204840), size(5 * 2**20)
    ('900 B', '200.0 KiB', '5.0 MiB')
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def verdict(recorded: Recorded) -> str:
    """What came out, in one or two sentences."""
    run = recorded.run
    if not recorded.done:
        return (
            f"{run['name']} is not over: {len(run['history'])} epochs are done, and there is no "
            f"small network yet."
        )
    before, after, test = run["before"], run["after"], run["test"]
    if after["weights"] == before["weights"]:
        head = f"{run['name']}: nothing was cut."
    else:
        weights, macs = (100 * after[k] / (before[k] or 1) for k in ("weights", "macs"))
        head = (
            f"{run['name']}: the small network has {weights:.1f} % of the weights and "
            f"{macs:.1f} % of the multiply-adds of the dense one."
        )
    metric = run["metric"].removesuffix(" (%)")
    dense, small = (_with_unit(run, test[name]) for name in ("dense", "small"))
    return f"{head} The {metric} on the test set is {small}; the dense network's is {dense}."


def _with_unit(run: dict[str, Any], value: float) -> str:
    return number(value) + (" %" if run["metric"].endswith(" (%)") else "")


def grain(recorded: Recorded) -> str:
    """How coarse a test error in percent is, where the number of test images is known."""
    notes: dict[str, Any] = recorded.run["notes"]
    if notes.get("model") or notes.get("data") not in SETS or "%" not in recorded.run["metric"]:
        return ""
    count = SETS[notes["data"]].counts["test"]
    return f"One of the {count:,} test images is {100 / count:.2g} points."
