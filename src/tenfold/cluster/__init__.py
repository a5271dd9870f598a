"""More than one chip: topologies, and what collectives on them take."""

from tenfold.cluster.collective import Collective, Moved, Way, collective, steps_and_share
from tenfold.cluster.link import Link, LinkFacts, link_facts
from tenfold.cluster.topology import (
    Level,
    Shape,
    Topology,
    topology_named,
    topology_names,
    topology_of,
)

__all__ = [
    "Collective", "Level", "Link", "LinkFacts", "Moved", "Shape", "Topology", "Way", "collective",
    "link_facts", "steps_and_share", "topology_named", "topology_names", "topology_of",
]  # fmt: skip
