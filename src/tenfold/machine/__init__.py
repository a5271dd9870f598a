"""The machine: kernels on a chip give time, counters and energy."""

from tenfold.machine.kernel import Kernel, Product, Program, Traffic
from tenfold.machine.run import Counters, EnergyEntry, KernelRun, Run
from tenfold.machine.simulate import require_model, simulate, time_kernel

__all__ = [
    "Counters",
    "EnergyEntry",
    "Kernel",
    "KernelRun",
    "Product",
    "Program",
    "Run",
    "Traffic",
    "require_model",
    "simulate",
    "time_kernel",
]
