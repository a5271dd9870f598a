"""One pass over a graph that cuts it: how each value is cut, and the ops of the part."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tenfold.cluster.asked import Asked, products_of, sectioned, tied_tables, wishes
from tenfold.cluster.part import Held, Part, Prices
from tenfold.cluster.sums import summed_first
from tenfold.ir.cost import lookup_axis, op_call, op_work
from tenfold.ir.dims import Shape
from tenfold.ir.dtypes import from_numpy
from tenfold.ir.graph import Array, Attr, Graph, Op, Value, stored_numbers
from tenfold.ir.infer import Scope, infer_op, row_of
from tenfold.ir.sharding import SUM, Cut, Split, divides, part_shape
from tenfold.ir.table import Call, Lowering, OpRow

# of the numbers that a chip holds, from which on a table that is looked up is cut; half and double
# change which tables of positions are on every chip, by 1 % of its memory at most
TABLE_SHARE = 0.01


class Cutting:
    """One pass over the graph: how each value is cut, and the ops of a part so far."""

    def __init__(self, graph: Graph, asked: Asked, whole: frozenset[int]) -> None:
        self.graph, self.asked, self.whole = graph, asked, whole
        self.ways, self.stride = asked.ways, asked.stride
        self.scope = Scope(prefix="part")
        self.ops: list[Op] = []
        self.cuts: dict[str, Cut | None] = {}
        self.forms: dict[tuple[str, Cut | None], str] = {}
        self.held: dict[str, Held] = {}
        self.origins: dict[str, frozenset[int]] = {}
        self.done_whole: dict[str, Op] = {}
        self.gathers: list[tuple[str, frozenset[int]]] = []
        self.inputs: dict[str, Cut | None] = {}
        stored = sum(map(self._stored, graph.constants))
        self.large = TABLE_SHARE * stored / self.ways
        self.tied = tied_tables(graph, self.ways)
        self.wishes = wishes(graph, asked.like)
        self.uses: dict[str, int] = {}
        for op in graph.ops:
            for n in op.inputs:
                self.uses[n] = self.uses.get(n, 0) + 1
        for n in graph.inputs:
            if n in asked.received:
                self._input(n, self._along(graph.values[n].dims) if asked.sequence else None)

    # --- one op --------------------------------------------------------------------------

    def visit(self, i: int, op: Op) -> None:
        row = row_of(op)
        call = op_call(self.graph, op)
        if self._looks_up_rows(op, row):
            return self._shifted_lookup(op)
        split = self._chosen(i, op, row, call)
        if split is None:
            return self._whole(op)
        self._apply(i, op, row, call, split)
        return None

    def _chosen(self, i: int, op: Op, row: OpRow, call: Call) -> Split | None:
        """How the op is done in parts; None: by every chip whole."""
        given = [self._cut(n) for n in op.inputs]
        if op.bodies:
            return None
        wished = self._wished(op, row, call, given)
        if wished is not None:
            return wished
        starts = row.lowering is Lowering.MATRIX or lookup_axis(self.graph, op) is not None
        if not any(given) and (not starts or i in self.whole):
            return None
        splits = [sectioned(s, given, call, self.ways) for s in row.splits(row, call, self.ways)]
        kept = [s for s in splits if self._keeps(s, given, call)]
        found = self._with_weights_cut(kept, splits, op)
        if starts and i not in self.whole:
            found += self._starting(splits, op, row)

        def order(s: Split) -> tuple[int, int, bool, int]:
            gathered = self._gathered(s, given, op)
            return self._copies(s, op), gathered, s.summed, self._sliced(s, given, op)

        return min(found, key=order, default=None)

    def _wished(self, op: Op, row: OpRow, call: Call, given: list[Cut | None]) -> Split | None:
        """The split of an op whose result is to be cut as a weight is, where less is gathered for
        it than the result has bytes.
        """
        weight = self.wishes.get(op.outputs[0])
        held = self.held.get(weight) if weight is not None else None
        if held is None or held.cut is None:
            return None
        most = int(str(self.graph.values[op.outputs[0]].bytes))
        found = [
            s
            for s in row.splits(row, call, self.ways)
            if s.results[0] == held.cut and self._gathered(s, given, op) < most
        ]

        def order(s: Split) -> tuple[int, int]:
            return self._gathered(s, given, op), self._sliced(s, given, op)

        return min(found, key=order, default=None)

    def _starting(self, splits: list[Split], op: Op, row: OpRow) -> list[Split]:
        """The cuts of a product with weights, or of a table: by columns, or with a share of the
        activations, or by rows.
        """
        weights = [n for n, name in enumerate(op.inputs) if self._is_weight(name)]
        if row.lowering is Lowering.GATHER and self._stored(op.inputs[0]) < self.large:
            return []
        return [s for s in splits if any(s.operands[n] for n in weights)]

    def _stored(self, name: str) -> int:
        return stored_numbers(self.graph.values[name], self.graph.stored)

    def _is_weight(self, name: str) -> bool:
        return name in self.graph.constants and len(self.graph.values[name].dims) > 1

    def _is_free(self, name: str) -> bool:
        """Whether a chip can hold just a part of it from the start."""
        return name in self.graph.constants or (
            name in self.graph.inputs
            and name not in self.asked.received
            and self.inputs.get(name) is None
            and self.uses[name] == 1
        )

    def _cut(self, name: str) -> Cut | None:
        """How a value is cut that chips have in no other form."""
        everywhere = not name or self._is_free(name) or (name, None) in self.forms
        return None if everywhere else self.cuts.get(name)

    def _keeps(self, split: Split, given: list[Cut | None], call: Call) -> bool:
        """Whether something that is cut already is cut as the split asks."""
        fits = all(
            divides(c, call.shape(n), self.ways)
            for n, c in enumerate(split.operands)
            if c is not None
        )
        pairs = zip(given, split.operands, strict=True)
        return fits and any(have is not None and have == want for have, want in pairs)

    def _with_weights_cut(self, kept: list[Split], splits: list[Split], op: Op) -> list[Split]:
        """Of the ways to do a product that keep a cut, those that cut its weights too: they are
        never whole on every chip for activations that lie apart.
        """
        products = row_of(op).lowering is Lowering.MATRIX
        weights = [n for n, x in enumerate(op.inputs) if products and self._is_weight(x)]

        def cut(s: Split) -> bool:
            return any(s.operands[n] is not None for n in weights)

        return [s for s in kept if cut(s)] if weights and any(map(cut, splits)) else kept

    def _gathered(self, split: Split, given: list[Cut | None], op: Op) -> int:
        """Bytes that chips gather first, since they are cut in another way than the split asks."""
        return sum(
            int(str(self.graph.values[name].bytes))
            for have, want, name in zip(given, split.operands, op.inputs, strict=True)
            if have is not None and have != want
        )

    def _copies(self, split: Split, op: Op) -> int:
        """Weights that a chip holds already, cut in another way: they would be held twice."""
        pairs = zip(op.inputs, split.operands, strict=True)
        return sum(
            self._is_weight(n) and n in self.held and (n, want) not in self.forms
            for n, want in pairs
        )

    def _sliced(self, split: Split, given: list[Cut | None], op: Op) -> int:
        """Operands of which each chip takes its part, though it has them whole."""
        return sum(
            want is not None
            and have is None
            and not self._is_free(name)
            and (name, want) not in self.forms
            for have, want, name in zip(given, split.operands, op.inputs, strict=True)
        )

    def _whole(self, op: Op) -> None:
        """The op as it is, on every chip."""
        given = [n for n in op.inputs if n and self._cut(n) is not None]
        for name in given:
            self.gathers.append((name, self.origins.get(name, frozenset())))
        inputs = tuple(self.read(n, None) for n in op.inputs)
        self._emit(replace(op, inputs=inputs))
        for o in op.outputs:
            self._made(o, None, frozenset())
        self.done_whole[op.outputs[0]] = op

    def _apply(self, i: int, op: Op, row: OpRow, call: Call, split: Split) -> None:
        """The part of the op that each chip does, and what they do together after it."""
        starts = not any(self._cut(n) for n in op.inputs)
        origins = (
            frozenset({i})
            if starts
            else frozenset[int]().union(*(self.origins.get(n, frozenset()) for n in op.inputs))
        )
        for n, want in zip(op.inputs, split.operands, strict=True):
            if self._cut(n) not in (None, want):
                self.gathers.append((n, self.origins.get(n, frozenset())))
        inputs = [self.read(n, c) for n, c in zip(op.inputs, split.operands, strict=True)]
        if row.target is not None:
            first = split.results[0]
            cut = first if isinstance(first, Cut) else None
            shape = part_shape(call.out(), cut, self.ways)
            inputs[row.target] = self._number(op, "shape", np.array(shape, np.int64))
        for at in split.shifted:
            along = split.results[0]
            assert isinstance(along, Cut)
            each = int(str(call.out()[along.axis])) // self.ways
            inputs[at] = self._shifted(op, inputs[at], each)
        added = [inputs[n] for n in split.once]
        inputs = ["" if n in split.once else name for n, name in enumerate(inputs)]
        while inputs and not inputs[-1]:
            inputs.pop()
        attrs: dict[str, Attr] = {**op.attrs, **split.attrs}
        outputs = tuple(
            self._new(f"{o}/part") if o and r is SUM else o
            for o, r in zip(op.outputs, split.results, strict=True)
        )
        self._emit(replace(op, inputs=tuple(inputs), outputs=outputs, attrs=attrs))
        for o, part, result in zip(op.outputs, outputs, split.results, strict=True):
            cut = result if isinstance(result, Cut) else None
            if o and result is SUM:
                cut = self._summed(op, part, o, added)
            self._made(o, cut, frozenset() if result is SUM else origins)

    def _shifted(self, op: Op, name: str, each: int) -> str:
        """Indices less where the chip's own stretch of ``each`` begins."""
        starts = np.arange(self.ways, dtype=self.scope.values[name].dtype.numpy) * each
        first = self._ranked(self._new(f"{op.outputs[0]}/first"), starts)
        place = self._new(f"{op.outputs[0]}/place")
        return self._emit(Op("sub", (name, first), (place,), loc=op.loc))

    def _summed(self, op: Op, part: str, name: str, added: list[str]) -> Cut | None:
        """The sum over all chips, and what is added to it once: a number a channel. How it is cut:
        with sequences each chip takes its part of the sum.
        """
        along = self._along(self.scope.values[part].dims) if self.asked.sequence else None
        if along is not None and name not in self.wishes and not added:
            self._emit(self._together("reduce_scatter", part, name, op, along))
            return along
        total = self._new(f"{name}/sum") if added else name
        self._emit(self._together("all_reduce", part, total, op))
        for n, bias in enumerate(added):
            rank = len(self.scope.values[total].dims)
            column = self._new(f"{bias}/column")
            shape = np.array([-1, *(1,) * (rank - 2)], np.int64)
            target = self._number(op, f"column{n}", shape)
            self._emit(Op("reshape", (bias, target), (column,), loc=op.loc))
            self._emit(Op("add", (total, column), (name,), loc=op.loc))
        return None

    # --- tables that are cut along what is looked up -------------------------------------

    def _looks_up_rows(self, op: Op, row: OpRow) -> bool:
        """Whether the op looks up rows of a table that is cut by rows: one that a product has cut
        so (tied embeddings).
        """
        cut = self.tied.get(op.inputs[0]) if op.inputs else None
        return (
            cut is not None
            and row.lowering is Lowering.GATHER
            and lookup_axis(self.graph, op) == cut.axis == 0
        )

    def _shifted_lookup(self, op: Op) -> None:
        """Each chip looks up what is in its rows and zeros for the rest, and all are added up
        (Shoeybi et al. 2019, section 3; VocabParallelEmbedding of Megatron-LM).
        """
        table, indices = op.inputs
        cut = self.tied[table]
        rows = int(str(self.graph.values[table].dims[0]))
        each = rows // self.ways
        own = self.read(table, cut)
        asked = self.read(indices, None)
        name, dtype = op.outputs[0], self.graph.values[indices].dtype
        zero, last = (
            self._number(op, w, np.array(v, dtype.numpy))
            for w, v in (("zero", 0), ("last", each - 1))
        )

        def make(kind: str, what: str, *inputs: str, **attrs: Attr) -> str:
            made = (self._new(f"{name}/{what}"),)
            return self._emit(Op(kind, inputs, made, attrs, loc=op.loc))

        place = self._shifted(op, asked, each)
        here = make("clip", "here", place, zero, last)
        inside = make("equal", "inside", place, here)
        found = make(op.kind, "found", own, here, **op.attrs)
        rank = len(self.scope.values[inside].dims)
        axes = self._number(op, "axes", np.array([rank], np.int64))
        column = make("unsqueeze", "column", inside, axes)
        nothing = self._number(op, "nothing", np.zeros((), self.graph.values[name].dtype.numpy))
        part = make("where", "part", column, found, nothing)
        self._emit(self._together("all_reduce", part, name, op))
        self._made(name, None, frozenset())

    def _ranked(self, name: str, content: Array) -> str:
        """One number for each chip."""
        value = Value(name, from_numpy(content.dtype), (1,))
        self.scope.declare(value)
        self.held[name] = Held(name, Cut(0), content)
        return name

    # --- values in the form that is wanted -----------------------------------------------

    def read(self, name: str, cut: Cut | None) -> str:
        """A value whole or cut, on each chip; made so where it is not."""
        if not name:
            return ""
        key = name, cut
        if key not in self.forms:
            self.forms[key] = self._form(name, cut)
        return self.forms[key]

    def _form(self, name: str, cut: Cut | None) -> str:
        if name in self.graph.constants:
            return self._constant(name, cut)
        if name in self.graph.inputs and name not in self.cuts:
            self._input(name, cut if self._is_free(name) else None)
        have = self.cuts[name]
        if have == cut:
            return name
        if have is not None:
            whole = self.forms.get((name, None))
            if whole is None:
                op = self._together("all_gather", name, self._new(f"{name}/whole"), None, have)
                whole = self.forms[name, None] = self._emit(op)
            if cut is None:
                return whole
            return self._emit(
                self._together("own_part", whole, self._new(f"{name}/own"), None, cut)
            )
        assert cut is not None
        own = self._part_only(name, cut)
        return own or self._emit(
            self._together("own_part", name, self._new(f"{name}/own"), None, cut)
        )

    def _part_only(self, name: str, cut: Cut) -> str | None:
        """Of a value that every chip made whole, and that nobody else reads, its part alone, made
        from parts of constants and of what chips have whole; None where that cannot be.
        """
        op = self.done_whole.get(name)
        if op is None or len(op.outputs) > 1 or self.uses[name] > 1 or name in self.graph.outputs:
            return None
        row, call = row_of(op), op_call(self.graph, op)
        sure = row.target is None and row.pure
        numbers = {n for n in op.inputs if n in self.graph.constants and not self._stored(n)}
        for split in row.splits(row, call, self.ways):
            plain = sure and split.results == (cut,) and not split.shifted
            pairs = list(zip(op.inputs, split.operands, strict=True))
            if plain and all(c is None or n in numbers for n, c in pairs):
                self.ops = [o for o in self.ops if o.outputs[0] != name]
                inputs = tuple(self.read(n, c) for n, c in pairs)
                own, attrs = self._new(f"{name}/own"), {**op.attrs, **split.attrs}
                return self._emit(replace(op, inputs=inputs, outputs=(own,), attrs=attrs))
        return None

    def _new(self, name: str) -> str:
        """``name``, or one like it that no value has."""
        while name in self.graph.values or name in self.scope.values:
            name += "'"
        return name

    def _along(self, shape: Shape) -> Cut | None:
        """The cut of sums along sequences; None for what has none, or does not divide."""
        return Cut(1) if len(shape) > 2 and divides(Cut(1), shape, self.ways) else None

    def _input(self, name: str, cut: Cut | None) -> None:
        value = self.graph.values[name]
        self.scope.declare(replace(value, shape=part_shape(value.dims, cut, self.ways)))
        self.inputs[name] = cut
        self.cuts[name] = cut
        self.forms[name, cut] = name

    def _constant(self, name: str, cut: Cut | None) -> str:
        taken = name in self.held
        local = self._new(name) if taken else name
        value = self.graph.values[name]
        content = self.graph.constants[name] if cut is None else None
        shape = part_shape(value.dims, cut, self.ways)
        self.scope.declare(replace(value, name=local, shape=shape), content)
        self.held[local] = Held(name, cut)
        if name in self.graph.stored:
            shares = self.ways if cut is not None else 1
            self.scope.stored[local] = self.graph.stored[name] // shares
        return local

    def _number(self, op: Op, what: str, content: Array) -> str:
        name = self._new(f"{op.outputs[0]}/{what}")
        self.scope.constant(name, content)
        self.held[name] = Held(name, None, content)
        self.scope.stored[name] = 0
        return name

    def _together(
        self, kind: str, source: str, name: str, op: Op | None, cut: Cut | None = None
    ) -> Op:
        attrs: dict[str, Attr] = {"ways": self.ways, "stride": self.stride}
        if cut is not None:
            attrs["axis"] = cut.axis
            if cut.sections:  # of the whole
                attrs["sections"] = cut.sections
        return Op(kind, (source,), (name,), attrs, loc=f"{op.name if op else source}/{kind}")

    def _emit(self, op: Op) -> str:
        self.ops.append(infer_op(self.scope, op))
        return op.outputs[0]

    def _made(self, name: str, cut: Cut | None, origins: frozenset[int]) -> None:
        if not name:
            return
        self.cuts[name] = cut
        self.forms[name, cut] = name
        self.origins[name] = origins if cut is not None else frozenset()
        want = part_shape(self.graph.values[name].dims, cut, self.ways)
        have = self.scope.values[name].dims
        assert have == want, f"{name}: a part of {want} came out as {have}"

    # --- the end -------------------------------------------------------------------------

    def wasted(self, prices: Prices) -> frozenset[int]:
        """Products whose cut saves less than gathering its results takes."""
        spent: dict[int, float] = {}
        for name, origins in self.gathers:
            size = float(str(self.graph.values[name].bytes))
            share = (self.ways - 1) / self.ways
            cost = prices.link_s + share * size / prices.link_bytes_per_s
            for i in origins:
                spent[i] = spent.get(i, 0.0) + cost / len(origins)
        return frozenset(i for i, cost in spent.items() if cost > self._saved(i, prices))

    def _saved(self, i: int, prices: Prices) -> float:
        """Seconds that a cut saves each chip; no bound for a table, for which it saves memory, and
        for weights that others multiply by too, which would be held twice.
        """
        op = self.graph.ops[i]
        shared = any(self._is_weight(n) and self.uses[n] > 1 for n in op.inputs)
        if row_of(op).lowering is Lowering.GATHER or shared:
            return math.inf
        work = op_work(self.graph, op)
        weights = sum(
            float(str(self.graph.values[n].bytes)) for n in op.inputs if self._is_weight(n)
        )
        reading = weights / prices.memory_bytes_per_s
        whole = max(reading, float(str(work.contraction_flops)) / prices.flops_per_s)
        return whole * (1 - 1 / self.ways)

    def _as_wished(self, name: str) -> str:
        """An output that is to be cut as a weight is: under its own name."""
        weight = self.asked.like.get(name)
        held = self.held.get(weight) if weight is not None else None
        if held is None or self.cuts.get(name) == held.cut:
            return name
        made = self.read(name, held.cut)
        self.cuts[name] = held.cut
        return made

    def finish(self) -> Part:
        for name in self.graph.inputs:
            if name not in self.cuts:
                self._input(name, None)
        for name in self.graph.outputs:
            if name in self.graph.constants and name not in self.held:
                self._constant(name, None)
        outputs = tuple(self._as_wished(n) for n in self.graph.outputs)
        scope = self.scope
        constants = {n: scope.constants.get(n, scope.known.get(n)) for n in self.held}
        for local, held in self.held.items():
            if held.cut is None and held.content is None:
                constants[local] = self.graph.constants[held.source]
        ops = summed_first(self.ops, outputs, scope.values)
        graph = Graph(
            name=self.graph.name,
            inputs=self.graph.inputs,
            outputs=outputs,
            ops=tuple(ops),
            values=scope.values,
            constants=constants,
            bounds=self.graph.bounds,
            limits=self.graph.limits,
            stored=scope.stored,
        )
        cuts = {n: self.cuts.get(n) for n in self.graph.outputs}
        return Part(
            graph=graph,
            ways=self.ways,
            inputs=self.inputs,
            outputs=cuts,
            constants=self.held,
            repeated_flops=self.ways * products_of(graph) - products_of(self.graph),
        )
