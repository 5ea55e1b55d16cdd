"""One multi-task step with gradient surgery, against what people run today.

Encoders with random weights, sentences as long as the real ones, batch 8 and 32. "Plain sum" does
no surgery; the others do PCGrad on the encoder.
"""

import torch
from common import (
    DEVICE,
    alternate,
    best_product_rate,
    encoder_config,
    options,
    print_table,
    random_splits,
    store,
    summary,
)
from peers import Peer
from torch.utils.flop_counter import FlopCounterMode

from mtl_lib.bert import BertModel
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.optim import FusedAdamW
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
        seed=0,
    )


def parts(trainer: Trainer, rounds: int) -> list[dict]:
    """Where the time of our step goes, with the arithmetic of forward and backward."""
    batches = [next(stream) for stream in trainer.streams.values()]
    gradients, weights = trainer.gradients, torch.ones(3)
    with FlopCounterMode(display=False) as counter:
        trainer._backward(batches)
    rows = gradients._rows
    floor = {
        "read the gradients": lambda: rows.sum(),
        "write one gradient": lambda: gradients._total.fill_(0.0),
    }
    times = alternate(
        {
            "forward and backward": lambda: trainer._backward(batches),
            "inner products": gradients.gram,
            "combination": lambda: gradients.combine(weights),
            "AdamW": trainer.optimizer.step,
            **floor,
        },
        rounds,
    )
    medians = {row["method"]: row["median ms"] for row in summary(times)}
    surgery = medians["inner products"] + medians["combination"]
    step = medians["forward and backward"] + surgery + medians["AdamW"]
    rate = counter.get_total_flops() / medians["forward and backward"] / 1e6
    bound = 2 * medians["read the gradients"] + medians["write one gradient"]
    best = best_product_rate()
    measures = {
        "forward and backward, ms": medians["forward and backward"],
        "inner products, ms": medians["inner products"],
        "combination, ms": medians["combination"],
        "AdamW, ms": medians["AdamW"],
        "surgery / step": round(surgery / step, 3),
        "surgery / memory bandwidth floor": round(surgery / bound, 2),
        "forward and backward, GFLOP/s": round(rate),
        "best matrix product, GFLOP/s": round(best),
        "rate / best": round(rate / best, 2),
    }
    return [{"measure": name, "value": value} for name, value in measures.items()]


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


if __name__ == "__main__":
    main()
