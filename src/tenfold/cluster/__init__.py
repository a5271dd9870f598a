"""More than one chip: topologies, and what collectives on them take."""

from tenfold.cluster.collective import Moved, Way, collective
from tenfold.cluster.exchange import MULTIPROCESSORS, Exchange, Tokens, exchange
from tenfold.cluster.group import Group, Stage, grouped
from tenfold.cluster.layout import Layout, Side, layout_named, layout_of
from tenfold.cluster.link import Link, LinkFacts, link_facts
from tenfold.cluster.network import Joined
from tenfold.cluster.part import Part, Prices
from tenfold.cluster.partition import partition
from tenfold.cluster.topology import (
    Level,
    Shape,
    Topology,
    joining,
    topology_named,
    topology_names,
    topology_of,
)
from tenfold.ir.sharding import Collective

__all__ = [
    "MULTIPROCESSORS", "Collective", "Exchange", "Group", "Joined", "Layout", "Level", "Link",
    "LinkFacts", "Moved", "Part", "Prices", "Shape", "Side", "Stage", "Tokens", "Topology", "Way",
    "collective", "exchange", "grouped", "joining", "layout_named", "layout_of", "link_facts",
    "partition", "topology_named", "topology_names", "topology_of",
]  # fmt: skip
