"""What a model costs."""

from vibnet.cost.layers import Layer as Layer
from vibnet.cost.layers import cuttable_time as cuttable_time
from vibnet.cost.layers import layers as layers
from vibnet.cost.measure import Cost as Cost
from vibnet.cost.measure import Ratios as Ratios
from vibnet.cost.measure import measure as measure
from vibnet.cost.measure import ratios as ratios
from vibnet.cost.time import latency as latency
