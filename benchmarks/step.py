"""One multi-task step with gradient surgery, against what people run today.

Encoders with random weights, sentences as long as the real ones, batch 8 and 32. "Plain sum" does
no surgery; the others do PCGrad on the encoder.
"""

import statistics
from functools import partial

import torch
from common import (
    DEVICE,
    WARM_UP,
    alternate,
    encoder_config,
    matrix_products,
    options,
    print_table,
    random_splits,
    store,
    summary,
    timed,
    watch,
)
from peers import Peer
from torch.ops import aten
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mtl_lib.bert import BertModel
from mtl_lib.fast.engine import FastEngine
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.fast.joint import JointGradients
from mtl_lib.fast.packed import Pack
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.tasks import TASKS
from mtl_lib.trainer import Trainer
from mtl_lib.weighting import pcgrad_weights

REFERENCE = "transformers + torch AdamW, plain sum"
OURS = "this library, surgery"


def our_trainer(size: str, splits: dict, batch_size: int) -> Trainer:
    """The library as the study uses it."""
    heads = {task.name: HeadConfig() for task in TASKS}
    model = MultitaskModel(BertModel(encoder_config(size)), heads).to(DEVICE)
    return Trainer(
        model,
        splits,
        optimizer=FusedAdamW(model.parameters(), lr=1e-5),
        weighting=pcgrad_weights,
        batch_size=batch_size,
        engine="fast",
    )


class Products(TorchDispatchMode):
    """Notes every matrix product that runs within it, to run them again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        call = partial(function, *arguments, **(options or {}))
        if function.overloadpacket in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm):
            self.calls.append(call)
        return call()

    @torch.no_grad()
    def again(self) -> None:
        for call in self.calls:
            call()


def parts(trainer: Trainer, rounds: int) -> list[dict]:
    """Where the time of our step goes, with the arithmetic of forward and backward.

    "Products alone" runs the matrix products of forward and backward again and nothing else: no
    arrangement of the rest is faster than that.
    """
    trainer.step()  # makes the buffers
    engine, streams = trainer.engine, trainer.streams
    gradients = trainer.gradients
    rows, flop = gradients._rows, []
    large = matrix_products(torch.bfloat16 if trainer.model.low_precision else torch.float32)
    others = {
        "read the gradients": lambda: rows.sum(),
        "write one gradient": lambda: gradients._total.fill_(0.0),
        **{name: call for name, (call, _) in large.items()},
    }
    apart = {name: [] for name in (*others, "products alone")}
    with watch(
        (engine, "backward", "forward and backward"),
        (gradients, "gram", "inner products"),
        (gradients, "combine", "combination"),
        (trainer.optimizer, "step", "AdamW"),
    ) as times:
        for _ in range(WARM_UP + rounds):
            batches = [next(stream) for stream in streams.values()]
            trainer.streams = {batch.task.name: iter([batch]) for batch in batches}
            trainer.step()
            with FlopCounterMode(display=False) as counter, Products() as products:
                # not the watched one
                single = [[batch] for batch in batches]
                FastEngine.backward(engine, single, trainer.loss, trainer.terms_of)
            flop.append(counter.get_total_flops())
            apart["products alone"].append(timed(products.again))
            for name, call in others.items():  # in turn: the machine's speed is never the same
                apart[name].append(timed(call))
    trainer.streams = streams
    medians = {name: statistics.median(ms[WARM_UP:]) for name, ms in (times | apart).items()}
    surgery = medians["inner products"] + medians["combination"]
    step = medians["forward and backward"] + surgery + medians["AdamW"]

    def rate(spent: list[float]) -> float:  # GFLOP/s
        pairs = zip(flop[WARM_UP:], spent[WARM_UP:], strict=True)
        return statistics.median(count / ms / 1e6 for count, ms in pairs)

    reached, bare = rate(times["forward and backward"]), rate(apart["products alone"])
    bound = 2 * medians["read the gradients"] + medians["write one gradient"]
    best = max(count / medians[name] / 1e6 for name, (_, count) in large.items())
    measures = {
        "forward and backward, ms": round(medians["forward and backward"], 1),
        "products alone, ms": round(medians["products alone"], 1),
        "inner products, ms": round(medians["inner products"], 1),
        "combination, ms": round(medians["combination"], 1),
        "AdamW, ms": round(medians["AdamW"], 1),
        "surgery / step": round(surgery / step, 3),
        "surgery / memory bandwidth floor": round(surgery / bound, 2),
        "forward and backward, GFLOP/s": round(reached),
        "products alone, GFLOP/s": round(bare),
        "best matrix product, GFLOP/s": round(best),
        "rate / best": round(reached / best, 2),
        "products alone / best": round(bare / best, 2),
    }
    return [{"measure": name, "value": value} for name, value in measures.items()]


def growth(rounds: int) -> list[dict]:
    """Our step against the number of tasks, each with a batch of 8 pairs: time per task, shares."""
    split = random_splits(400)["paraphrase"]
    encoder = BertModel(encoder_config("minilm-l6")).to(DEVICE).train()
    optimizer = FusedAdamW(encoder.parameters(), lr=1e-5)
    rows = []
    for tasks in (2, 3, 8, 32):
        gradients, weights = JointGradients(encoder, tasks), torch.ones(tasks)
        batches = [split.batch(range(8 * t, 8 * t + 8)) for t in range(tasks)]
        pack = Pack.of([(b.input_ids, b.attention_mask) for b in batches], DEVICE)

        def both(gradients=gradients, pack=pack):
            gradients.vectors(pack).square().sum().backward()

        both()
        parts = {
            "forward and backward": both,
            "inner products": gradients.gram,
            "combination": lambda g=gradients, w=weights: g.combine(w),
            "AdamW": optimizer.step,
        }
        gradients.combine(weights)
        medians = {row["method"]: row["median ms"] for row in summary(alternate(parts, rounds))}
        step = sum(medians.values())
        rows.append(
            {"tasks": tasks}
            | {f"{name}, ms": value for name, value in medians.items()}
            | {"ms per task": round(step / tasks, 1)}
            | {"inner products / step": round(medians["inner products"] / step, 3)}
        )
    return rows


# Encoder, batch size, and how many times fewer rounds it gets.
CASES = (("minilm-l6", 8, 1), ("minilm-l6", 32, 3), ("bert-base", 8, 3), ("bert-base", 32, 5))
OTHERS = {"transformers + TorchJD PCGrad": "torchjd", "transformers + LibMTL PCGrad": "libmtl"}


def main() -> None:
    chosen = options(__doc__, rounds=11)
    tables = {}
    for size, batch_size, fewer in CASES:
        rounds = max(2, chosen.rounds // fewer)
        splits = random_splits(400)
        trainer = our_trainer(size, splits, batch_size)
        candidates = {REFERENCE: Peer(size, splits, batch_size).step}
        if (size, batch_size) != ("bert-base", 32):  # all four there take more than 24 GB
            for name, surgery in OTHERS.items():
                candidates[name] = Peer(size, splits, batch_size, surgery).step
        candidates[OURS] = trainer.step
        title = f"{size}, batch {batch_size} x 3"
        tables[title] = summary(alternate(candidates, rounds))
        print_table(tables[title], f"{title}, {rounds} rounds")
        del candidates
        if batch_size == 8:
            tables[f"{title}: parts"] = parts(trainer, 11)
            print_table(tables[f"{title}: parts"], f"{title}: where our step goes")
        store("step", tables)
    title = "minilm-l6, our step against the number of tasks"
    tables[title] = growth(max(2, chosen.rounds // 3))
    print_table(tables[title], title)
    store("step", tables)


if __name__ == "__main__":
    main()
