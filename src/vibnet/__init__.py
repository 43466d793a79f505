"""Learn which units of a network matter, and take the others out, exactly."""

from vibnet.cost import measure as measure
from vibnet.surgery.artefact import save as save
from vibnet.surgery.attach import attach as attach
from vibnet.surgery.attach import parameter_groups as parameter_groups
from vibnet.surgery.attach import penalty as penalty
from vibnet.surgery.loading import load as load
from vibnet.surgery.plan import Plan as Plan
from vibnet.surgery.plan import plan as plan
from vibnet.surgery.prune import prune as prune
from vibnet.surgery.shards import prune_files as prune_files

__version__ = "0.1.0"
