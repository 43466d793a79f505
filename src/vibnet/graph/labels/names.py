"""Lists of names for classes of labels: who writes them, who reads them, why."""

import numpy as np

from vibnet.graph.labels.labels import Array


class Names:
    """For every class of labels, names in the order in which they were first given."""

    def __init__(self, count: int) -> None:
        self.number = np.zeros(count, dtype=np.int64)
        self.lists: list[tuple[str, ...]] = [()]
        self._numbers: dict[tuple[str, ...], int] = {(): 0}

    def add(self, roots: Array, name: str) -> None:
        """Give a name to classes."""
        before = self.number[roots]
        for number in np.unique(before).tolist():
            names = self.lists[number]
            if name in names:
                continue
            self.number[roots[before == number]] = self.index((*names, name))

    def index(self, names: tuple[str, ...]) -> int:
        """The number of a list of names."""
        if names not in self._numbers:
            self._numbers[names] = len(self.lists)
            self.lists.append(names)
        return self._numbers[names]

    def first(self, roots: Array, name: str) -> None:
        """Give a name to those classes that have none."""
        self.add(roots[self.number[roots] == 0], name)
