"""The machine: kernels on a chip give time, counters and energy."""

from tenfold.machine.gpu.cache import warm
from tenfold.machine.kernel import (
    BUFFER_LEVELS,
    Attention,
    Buffer,
    Experts,
    Group,
    Kernel,
    Level,
    MemoryPlan,
    Moved,
    Operand,
    Product,
    Program,
    Role,
    Together,
    Traffic,
)
from tenfold.machine.network import Network
from tenfold.machine.run import Counters, KernelRun, Run
from tenfold.machine.running import Pace, gpu_times, pace, simulate, time_kernel, time_kernels
from tenfold.machine.stack import Stack, stack_facts, stack_named
from tenfold.machine.target import Balance, Cut, FusionRules, Joining, NearMemory, Target
from tenfold.machine.targets import target_of

__all__ = [
    "BUFFER_LEVELS",
    "Attention",
    "Balance",
    "Buffer",
    "Counters",
    "Cut",
    "Experts",
    "FusionRules",
    "Group",
    "Joining",
    "Kernel",
    "KernelRun",
    "Level",
    "MemoryPlan",
    "Moved",
    "NearMemory",
    "Network",
    "Operand",
    "Pace",
    "Product",
    "Program",
    "Role",
    "Run",
    "Stack",
    "Target",
    "Together",
    "Traffic",
    "gpu_times",
    "pace",
    "simulate",
    "stack_facts",
    "stack_named",
    "target_of",
    "time_kernel",
    "time_kernels",
    "warm",
]
