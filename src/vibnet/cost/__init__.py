"""What a model costs."""

from vibnet.cost.measure import Cost as Cost
from vibnet.cost.measure import Ratios as Ratios
from vibnet.cost.measure import measure as measure
from vibnet.cost.measure import ratios as ratios
from vibnet.cost.time import latency as latency
