"""What the benchmarks share: alternating timing, real sentence lengths, tables, results on disk.

Machines are noisy and shared. So the candidates of a comparison run in turn, round after round, in
one process; medians are quoted with their spread, and the ratio to the first candidate last.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

from mtl_lib.bert import BertConfig
from mtl_lib.data import TokenizedSplit
from mtl_lib.files import write_text
from mtl_lib.study.run import hardware
from mtl_lib.tasks import TASKS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP = 1  # rounds that are run but not counted

SIZES = {
    "minilm-l6": dict(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
    "bert-base": dict(hidden_size=768, num_hidden_layers=12, intermediate_size=3072),
}
LENGTHS = json.loads((HERE / "lengths.json").read_text(encoding="utf-8"))


def encoder_config(name: str) -> BertConfig:
    """The sizes of a public encoder; its weights are random here, which costs the same."""
    return BertConfig(vocab_size=30522, num_attention_heads=12, **SIZES[name])


def random_splits(size: int, tasks=TASKS) -> dict[str, TokenizedSplit]:
    """Random words in sentences as long as those of the CS224N training files (`lengths.json`)."""
    generator = torch.Generator().manual_seed(0)
    splits = {}
    for task in tasks:
        sentences = []
        for column in range(task.sentences):
            counts = LENGTHS[f"{task.name}-{column + 1}"]
            lengths = torch.tensor([int(length) for length in counts])
            shares = torch.tensor(list(counts.values()), dtype=torch.float64)
            drawn = lengths[shares.multinomial(size, replacement=True, generator=generator)]
            sentences.append(
                [torch.randint(1000, 30522, (int(n),), generator=generator) for n in drawn]
            )
        labels = torch.randint(task.max_label + 1, (size,), generator=generator)
        labels = labels if task.kind == "classes" else labels.float()
        splits[task.name] = TokenizedSplit(task, [str(i) for i in range(size)], labels, sentences)
    return splits


def timed(function: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def alternate(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list]:
    """Run the candidates in turn; milliseconds of each round, warm-up left out."""
    times = {name: [] for name in candidates}
    for number in range(WARM_UP + rounds):
        for name, function in candidates.items():
            elapsed = timed(function)
            if number >= WARM_UP:
                times[name].append(elapsed)
    return times


@contextmanager
def watch(*parts: tuple[object, str, str]) -> Iterator[dict[str, list]]:
    """Milliseconds of every call of some functions: `(owner, attribute, name in the result)`."""
    times = {name: [] for *_, name in parts}

    def watched(function: Callable, name: str) -> Callable:
        def timed_call(*arguments, **options):
            results = []
            call = partial(function, *arguments, **options)
            times[name].append(timed(lambda: results.append(call())))
            return results[0]

        return timed_call

    with ExitStack() as stack:
        for owner, attribute, name in parts:
            call = watched(getattr(owner, attribute), name)
            stack.enter_context(patch.object(owner, attribute, call))
        yield times


def summary(times: Mapping[str, list]) -> list[dict]:
    """Per candidate the median, the middle half and the median ratio to the first one.

    The ratio is taken round by round, so that a slow moment of the machine hits both.
    """
    reference = next(iter(times.values()))
    rows = []
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        ratios = [value / other for value, other in zip(values, reference, strict=True)]
        rows.append(
            {
                "method": name,
                "median ms": round(statistics.median(values), 1),
                "middle half ms": f"{low:.1f}-{high:.1f}",
                "ratio": round(statistics.median(ratios), 3),
            }
        )
    return rows


def print_table(rows: list[dict], title: str) -> None:
    """One table in plain text."""
    columns = list(rows[0])
    cells = [columns] + [["" if row[c] is None else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def machine() -> dict:
    """What the numbers were measured on."""
    return {
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def store(name: str, tables: Mapping[str, list[dict]]) -> None:
    """Write the tables with their machine to results/NAME.json, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'-cuda' if DEVICE.type == 'cuda' else ''}.json"
    write_text(path, json.dumps({"machine": machine(), "tables": tables}, indent=1) + "\n")


def options(description: str, rounds: int) -> argparse.Namespace:
    """Command line of a benchmark: threads and rounds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    return chosen


def matrix_products(dtype: torch.dtype) -> dict[str, tuple[Callable[[], object], float]]:
    """Matrix products to hold a rate against: call and FLOP.

    One of the encoder's own shapes, and two larger ones.
    """
    products = {}
    for m, k, n in ((660, 384, 1536), (1024, 1024, 1024), (2048, 2048, 2048)):
        a, b = (torch.randn(shape, device=DEVICE, dtype=dtype) for shape in ((m, k), (k, n)))
        products[f"product {m} x {k} x {n}"] = (partial(torch.matmul, a, b), 2.0 * m * k * n)
    return products
