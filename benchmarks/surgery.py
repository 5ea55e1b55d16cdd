"""Gradient surgery alone: time and memory against the number of tasks and of parameters.

All start from the tasks' gradients; how they came about is not counted. The floor is what the
machine's memory allows: to read all gradients twice, once for the inner products and once for the
sum, and to write one. Sizes whose gradients take more than 4 GB are left out.
"""

import gc
import threading
import time
from collections.abc import Callable

import peers
import torch
from common import DEVICE, alternate, options, print_table, store, summary
from torchjd.aggregation import PCGrad

from mtl_lib.fast.joint import _gram
from mtl_lib.weighting import pcgrad_weights

TASKS = (2, 3, 8, 32)
SIZES = (5_000_000, 23_000_000, 110_000_000)
LIMIT = 4e9  # bytes


def resident() -> int:
    """Bytes of memory this process holds now (Linux)."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * 4096


def peak_growth(function: Callable[[], object]) -> float:
    """Megabytes by which memory grows at most while the function runs."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], resident())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = function()
    done.set()
    watcher.join()
    del result
    return max(0.0, (peak[0] - before) / 1e6)


def libmtl(gradients: torch.Tensor):
    """LibMTL's PCGrad with its collecting of gradients taken out."""
    pcgrad = peers.libmtl_class()()
    pcgrad.rep_grad, pcgrad.task_num, pcgrad.device = False, len(gradients), DEVICE
    pcgrad._compute_grad_dim = lambda: None
    pcgrad._compute_grad = lambda losses, mode: gradients
    pcgrad._reset_grad = lambda new: None
    return lambda: pcgrad.backward([None] * len(gradients))


def main() -> None:
    chosen = options(__doc__, rounds=7)
    rows = []
    for size in SIZES:
        for tasks in TASKS:
            if 4 * tasks * size > LIMIT:
                continue
            gradients = torch.randn(tasks, size, device=DEVICE)
            total = torch.empty(size, device=DEVICE)
            generator = torch.Generator().manual_seed(0)
            aggregator = PCGrad()

            def ours(gradients=gradients, total=total, generator=generator):
                weights = pcgrad_weights(_gram(gradients), generator)
                torch.mv(gradients.T, weights.float(), out=total)

            def floor(gradients=gradients, total=total):
                gradients.sum()
                gradients.sum()
                total.fill_(0.0)

            candidates = {
                "memory floor": floor,
                "this library": ours,
                "TorchJD": lambda g=gradients, a=aggregator: a(g),
            }
            if tasks < 32:  # minutes a call there
                candidates["LibMTL"] = libmtl(gradients)
            measured = summary(alternate(candidates, chosen.rounds))
            for row, function in zip(measured, candidates.values(), strict=True):
                copies = peak_growth(function) / (4 * size / 1e6)
                rows.append(
                    {"tasks": tasks, "parameters": f"{size / 1e6:.0f} M"}
                    | row
                    | {"extra memory, gradients": round(copies, 1)}
                )
            print_table(rows[-len(candidates) :], f"{tasks} tasks, {size / 1e6:.0f} M parameters")
            store("surgery", {"surgery": rows})


if __name__ == "__main__":
    main()
