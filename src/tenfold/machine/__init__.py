"""The machine: kernels on a chip give time, counters and energy."""

from tenfold.machine.gpu import times as gpu_times
from tenfold.machine.kernel import (
    Attention,
    Buffer,
    Experts,
    Family,
    Group,
    Kernel,
    MemoryPlan,
    Operand,
    Product,
    Program,
    Role,
    Traffic,
)
from tenfold.machine.run import Counters, EnergyEntry, KernelRun, Run
from tenfold.machine.simulate import require_model, simulate, time_kernel, time_kernels
from tenfold.machine.systolic import Balance, balance

__all__ = [
    "Attention",
    "Balance",
    "Buffer",
    "Counters",
    "EnergyEntry",
    "Experts",
    "Family",
    "Group",
    "Kernel",
    "KernelRun",
    "MemoryPlan",
    "Operand",
    "Product",
    "Program",
    "Role",
    "Run",
    "Traffic",
    "balance",
    "gpu_times",
    "require_model",
    "simulate",
    "time_kernel",
    "time_kernels",
]
