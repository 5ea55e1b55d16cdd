"""Gradient surgery alone: time and memory against the number of tasks and of parameters.

All start from the tasks' gradients; how they came about is not counted. The floor is what the
machine's memory allows: to read all gradients twice, once for the inner products and once for the
sum, and to write one. Sizes whose gradients take more than 4 GB are left out.

    python benchmarks/surgery.py                # both tables
    python benchmarks/surgery.py --weightings   # only the time of every weighting: a minute

The weights themselves cost the same for any number of parameters: microseconds from the Gram
matrix to the weights, in one thread.
"""

import argparse
import gc
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import peers
import torch
from common import DEVICE, WARM_UP, alternate, options, print_table, store, summary
from torchjd.aggregation import PCGrad

from mtl_lib.fast.joint import _gram
from mtl_lib.methods.weightings import WEIGHTINGS
from mtl_lib.weighting import pcgrad_weights

TASKS = (2, 3, 8, 32)
SIZES = (5_000_000, 23_000_000, 110_000_000)
LIMIT = 4e9  # bytes
CALLS = 100  # of a weighting in each round, on as many Gram matrices


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


def weightings(rounds: int) -> None:
    """Microseconds per call of every weighting, in one thread; to results/weightings.json.

    They are the processor's, so that what else runs on the machine does not count.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for tasks in (3, 8):
        generator = torch.Generator().manual_seed(0)
        gradients = torch.randn(CALLS, tasks, 64, generator=generator, dtype=torch.float64)
        gradients -= 0.8 * gradients.mean(dim=1, keepdim=True)  # most pairs conflict
        grams = gradients @ gradients.mT
        losses = torch.rand(CALLS, tasks, generator=generator) + 0.1

        def calls(weighting, grams=grams, losses=losses, generator=generator):
            see = getattr(weighting, "see", None)
            for gram, of_tasks in zip(grams, losses, strict=True):
                if see:
                    see(of_tasks)
                weighting(gram, generator)

        candidates = {name: partial(calls, new(tasks)) for name, new in WEIGHTINGS.items()}
        microseconds = {name: [] for name in candidates}
        for number in range(WARM_UP + rounds):
            for name, function in candidates.items():
                started = time.process_time()
                function()
                if number >= WARM_UP:
                    used = time.process_time() - started
                    microseconds[name].append(1e6 * used / CALLS)
        rows += [
            {"tasks": tasks, "method": row["method"]}
            | {"median us": row["median ms"], "middle half us": row["middle half ms"]}
            for row in summary(microseconds)
        ]
        print_table(rows[-len(candidates) :], f"{tasks} tasks: microseconds per call")
    if DEVICE.type == "cpu":  # the weights are found on the CPU wherever the gradients are
        store("weightings", {"weightings": rows})
    torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--weightings", action="store_true")
    only, sys.argv[1:] = parser.parse_known_args()
    chosen = options(__doc__, rounds=7)
    weightings(chosen.rounds)
    if only.weightings:
        return
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
