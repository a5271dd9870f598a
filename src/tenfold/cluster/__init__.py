"""More than one chip: topologies, and what collectives on them take."""

from tenfold.cluster.collective import Moved, Way, collective
from tenfold.cluster.exchange import MULTIPROCESSORS, Exchange, Tokens, exchange
from tenfold.cluster.link import Link, LinkFacts, link_facts
from tenfold.cluster.topology import (
    Level,
    Shape,
    Topology,
    topology_named,
    topology_names,
    topology_of,
)
from tenfold.ir.sharding import Collective

__all__ = [
    "MULTIPROCESSORS", "Collective", "Exchange", "Level", "Link", "LinkFacts", "Moved", "Shape",
    "Tokens", "Topology", "Way", "collective", "exchange", "link_facts", "topology_named",
    "topology_names", "topology_of",
]  # fmt: skip
