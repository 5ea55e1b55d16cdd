"""A cost model of data-parallel surgery: bytes, time and memory for 2 to 64 processes.

Nothing here ran on 64 processes. Two things are measured on this machine: how long gloo takes to
add up a buffer over two processes (a latency and a rate are fitted), and, from results/step.json,
how fast the encoder's products are and how fast T gradients are read. From these the model says
what a step costs with more processes; machines that were not at hand are assumed, and named so.

A step of T tasks over N processes, P shared parameters beside the word embeddings, U distinct words
of H numbers, b bytes a number:

    bytes a process sends   2 (N - 1) / N * b * T * (P + U * H)       a ring all-reduce
    time                    products / N  +  latency * 2 (N - 1)  +  bytes / network
                            + the T gradients read twice, and their T * T inner products
    memory                  4 bytes * (weights + 2 moments + sum + T gradients), activations apart

The bytes are those that the library sends: tests/test_data_parallel.py counts them on the wire.

Four ways out where T gradients are too many: bfloat16 on the wire; each process keeping 1 / N of
every gradient (reduce-scatter, a Gram matrix a shard, their sum exact); tasks summed in groups
before surgery; the plain sum. What the first and the third change in the result is simulated with
random gradients, and is a property of those.

    python benchmarks/scaling.py
"""

import json
import math
import os
import statistics
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import LENGTHS, RESULTS, options, print_table, store

from mtl_lib.weighting import pcgrad_weights

BATCH = 32
PROCESSES = (2, 4, 8, 16, 32, 64)
TASKS = (2, 3, 8, 16, 32, 64)
VOCABULARY = 30522
# Name: layers, hidden size.
ENCODERS = {
    "minilm-l6, 23 M": (6, 384),
    "bert-base, 110 M": (12, 768),
    "bert-large, 335 M": (24, 1024),
    "1 B": (24, 1792),
}
BUFFERS = (10_000, 100_000, 1_000_000, 10_000_000)  # numbers; of the calibration
GB = 1e9


def sizes(name: str) -> tuple[int, int]:
    """Shared parameters beside the word embeddings, and hidden size."""
    layers, hidden = ENCODERS[name]
    return layers * (12 * hidden**2 + 13 * hidden) + (512 + 2 + 2) * hidden, hidden


def tokens_of_a_task() -> float:
    """Mean tokens of an example of the three tasks, times the batch."""
    columns = [
        sum(int(length) * count for length, count in counts.items()) / sum(counts.values())
        for counts in LENGTHS.values()
    ]
    return BATCH * sum(columns) / 3


def sent(processes: int, numbers: float) -> float:
    """Bytes that each process of a ring sends to add up a buffer of float32."""
    return 2 * (processes - 1) / processes * numbers * 4


def _time_buffers(rank: int, file: str, rounds: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    found = {}
    for size in BUFFERS:
        buffer, times = torch.ones(size), []
        for number in range(rounds + 1):
            dist.barrier()
            started = time.perf_counter()
            dist.all_reduce(buffer)
            if number:  # the first makes connections
                times.append(time.perf_counter() - started)
        found[size] = times
    if not rank:
        torch.save(found, f"{folder}/times.pt")
    dist.destroy_process_group()


def calibrate(rounds: int) -> tuple[list[dict], float, float]:
    """Seconds of gloo's all-reduce over two processes here: a table, latency and bytes a second."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _time_buffers, (os.path.join(folder, "store"), rounds, folder), 2, start_method="fork"
        )
        times = torch.load(os.path.join(folder, "times.pt"))
    medians = {size: statistics.median(values) for size, values in times.items()}
    smallest, largest = min(BUFFERS), max(BUFFERS)
    rate = sent(2, largest - smallest) / (medians[largest] - medians[smallest])
    latency = max(0.0, medians[smallest] - sent(2, smallest) / rate) / 2
    rows = [
        {
            "numbers": size,
            "median ms": round(1e3 * medians[size], 2),
            "middle half ms": "{:.2f}-{:.2f}".format(
                *(1e3 * q for q in statistics.quantiles(values, n=4)[::2])
            ),
            "model ms": round(1e3 * (2 * latency + sent(2, size) / rate), 2),
        }
        for size, values in times.items()
    ]
    return rows, latency, rate


def of_this_machine() -> tuple[float, float]:
    """FLOP a second of a training step, and bytes a second of reading gradients (step.json)."""
    tables = json.loads((RESULTS / "step.json").read_text(encoding="utf-8"))["tables"]
    parts = {row["measure"]: row["value"] for row in tables["bert-base, batch 8 x 3: parts"]}
    shared, _ = sizes("bert-base, 110 M")
    surgery = (parts["inner products, ms"] + parts["combination, ms"]) / 1e3
    return 1e9 * parts["forward and backward, GFLOP/s"], (2 * 3 + 1) * 4 * shared / surgery


def step(machine: dict, name: str, processes: int, tasks: int) -> dict:
    """What one step costs."""
    shared, hidden = sizes(name)
    tokens = tasks * tokens_of_a_task()
    words = min(VOCABULARY, tokens)  # at most: as if every token were another word
    numbers = tasks * (shared + words * hidden)
    wire = sent(processes, numbers)
    products = 6 * shared * tokens / machine["FLOP/s"] / processes
    network = 2 * (processes - 1) * machine["latency s"] + wire / machine["network B/s"]
    # Read twice, and T * T inner products.
    reading = (2 * tasks + 1) * 4 * (shared + words * hidden) / machine["memory B/s"]
    reading += 2 * tasks**2 * (shared + words * hidden) / machine["FLOP/s"]
    alone = products * processes + reading
    together = products + network + reading
    return {
        "encoder": name,
        "tasks": tasks,
        "processes": processes,
        "MB sent": round(wire / 1e6, 1),
        "products ms": round(1e3 * products, 2),
        "network ms": round(1e3 * network, 2),
        "surgery ms": round(1e3 * reading, 2),
        "times faster": round(alone / together, 2),
    }


def break_even(machines: dict[str, dict]) -> list[dict]:
    """Examples of a task's batch from which 8 processes calculate longer than they talk."""
    rows = []
    for title, machine in machines.items():
        found = {"machine": title}
        for name in ENCODERS:
            one = step(machine, name, 8, 3)
            found[name] = math.ceil(BATCH * one["network ms"] / one["products ms"])
        rows.append(found)
    return rows


def most_tasks(memory: float) -> list[dict]:
    """How many gradients fit beside weights and moments, and with each way out; of the word
    embeddings, of which a step touches some rows, only the weights and moments count."""
    rows = []
    for name in ENCODERS:
        shared, hidden = sizes(name)
        state = 4 * (shared + VOCABULARY * hidden) * 4  # weights, two moments, the sum
        free = memory - state
        rows.append(
            {
                "encoder": name,
                "GB of a gradient": round(4 * shared / GB, 2),
                "T that fit": max(0, math.floor(free / (4 * shared))),
                "T, kept in shards by 8": max(0, math.floor(free / (4 * shared / 8))),
                "T, kept in shards by 64": max(0, math.floor(free / (4 * shared / 64))),
            }
        )
    return rows


def ways_out(name: str, processes: int, tasks: int, groups: int) -> list[dict]:
    """Bytes and memory of surgery as it is and of what can replace it."""
    shared, _ = sizes(name)
    ring, share = sent(processes, shared), (processes - 1) / processes * 4 * shared
    rows = {
        "float32, as the library does": (tasks * ring, tasks),
        "bfloat16 on the wire": (tasks * ring / 2, tasks),
        "shards: reduce-scatter, sum gathered": ((tasks + 1) * share, tasks / processes),
        f"tasks summed in {groups} groups": (groups * ring, groups),
        "plain sum": (ring, 1),
    }
    return [
        {
            "way": way,
            "GB sent": round(wire / GB, 2),
            "GB of gradients": round(4 * n * shared / GB, 2),
        }
        for way, (wire, n) in rows.items()
    ]


def random_gradients(tasks: int, size: int, common: float) -> torch.Tensor:
    """Gradients `[T, P]` of norms from 1 to 4: two of them have the cosine `common`, or, where it
    is negative, that one across two camps and its opposite within them."""
    own = torch.randn(tasks, size, dtype=torch.float64)
    shared = torch.randn(size, dtype=torch.float64)
    mixed = math.sqrt(1 - abs(common)) * own + math.sqrt(max(common, 0.0)) * shared
    if common < 0:  # every second one turned away from the others
        signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(tasks)[:tasks, None]
        mixed += math.sqrt(-common) * signs * shared
    return mixed * torch.logspace(0, 2, tasks, base=2, dtype=torch.float64)[:, None] / size**0.5


def surgery(gradients: torch.Tensor) -> torch.Tensor:
    """The step, the tasks met in the same orders whenever there are as many."""
    weights = pcgrad_weights(gradients @ gradients.T, torch.Generator().manual_seed(0))
    return weights.to(gradients) @ gradients


def simulate(size: int = 20_000, draws: int = 20) -> list[dict]:
    """How far from exact surgery's step the cheaper ones are, over random gradients."""
    rows = []
    for tasks in (8, 64):
        for common in (-0.5, 0.0, 0.2):
            found: dict[str, list[float]] = {}
            for _ in range(draws):
                gradients = random_gradients(tasks, size, common)
                exact = surgery(gradients)
                half = [torch.randn_like(gradients) * gradients.std() for _ in range(7)]
                parts = [*half, gradients * 8 - sum(half)]  # of 8 processes, their mean exact
                rounded = sum(p.bfloat16() for p in parts).double() / 8
                steps = {"bfloat16 on the wire": surgery(rounded), "plain sum": gradients.sum(0)}
                for groups in (2, 4):
                    steps[f"{groups} groups"] = surgery(
                        torch.stack([gradients[g::groups].sum(0) for g in range(groups)])
                    )
                for way, other in steps.items():
                    error = (other - exact).norm() / exact.norm()
                    found.setdefault(way, []).append(error.item())
            medians = {way: round(statistics.median(errors), 4) for way, errors in found.items()}
            rows.append({"tasks": tasks, "cosine": common, **medians})
    return rows


def main() -> None:
    chosen = options(__doc__, rounds=30)
    calibration, latency, rate = calibrate(chosen.rounds)
    flops, memory = of_this_machine()
    machines = {
        "2 cores a process, loopback (measured here)": (flops, memory, latency, rate),
        "2 cores a process, 10 Gb/s Ethernet (network assumed)": (flops, memory, 50e-6, 1.1e9),
        "GPUs, 200 GB/s between them (assumed)": (1e14, 2e12, 10e-6, 2e11),
        "GPUs, a network of 25 GB/s (assumed)": (1e14, 2e12, 20e-6, 2.5e10),
    }
    keys = ("FLOP/s", "memory B/s", "latency s", "network B/s")
    machines = {title: dict(zip(keys, values, strict=True)) for title, values in machines.items()}
    tables = {"all-reduce over two processes here": calibration}
    tables["machines"] = [{"machine": title} | machine for title, machine in machines.items()]
    for title, machine in machines.items():
        tables[title] = [
            step(machine, name, processes, tasks)
            for name in ENCODERS
            for tasks in TASKS
            for processes in PROCESSES
        ]
    tables["batch a task from which 8 processes calculate longer than they talk"] = break_even(
        machines
    )
    tables["tasks whose gradients fit in 80 GB"] = most_tasks(80 * GB)
    tables["ways out: 1 B, 64 tasks, 8 processes, a step"] = ways_out("1 B", 8, 64, 4)
    tables["relative error of the step, random gradients (simulated)"] = simulate()
    for title, rows in tables.items():
        shown = [r for r in rows if r.get("tasks") in (3, 64) and r.get("processes") in (2, 8, 64)]
        print_table(shown if "MB sent" in rows[0] else rows, title)
    store("scaling", tables)


if __name__ == "__main__":
    main()
