"""Intermediate representation: graphs, the op table, inference, interpreter, verifier, text
form.
"""

from tenfold.ir.binding import bind
from tenfold.ir.cost import Totals, active_parameters, graph_totals, op_call, op_work
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph, Op, Value
from tenfold.ir.interpreter import interpret
from tenfold.ir.ops import TABLE
from tenfold.ir.table import Access, Call, Lowering, Matmul, OpRow, Space, Work
from tenfold.ir.text import parse_text, to_text
from tenfold.ir.verify import verify

__all__ = [
    "TABLE",
    "Access",
    "Call",
    "DType",
    "Graph",
    "Lowering",
    "Matmul",
    "Op",
    "OpRow",
    "Space",
    "Totals",
    "Value",
    "Work",
    "active_parameters",
    "bind",
    "graph_totals",
    "interpret",
    "op_call",
    "op_work",
    "parse_text",
    "to_text",
    "verify",
]
