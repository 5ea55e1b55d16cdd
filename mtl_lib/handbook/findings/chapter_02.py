"""What chapter 02 found: where BERT's parameters are, and what a frozen encoder is worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.handbook.findings import Finding
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.uncertainty import Evidence
from mtl_lib.tasks import SENTIMENT

MINILM = BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)


def _sizes() -> Mapping[str, Any]:
    """Millions of parameters of two encoders, and the shares of their parts."""
    values = {}
    for name, config in (("base", BertConfig()), ("mini", MINILM)):
        with torch.device("meta"):
            model = BertModel(config)
        total = sum(p.numel() for p in model.parameters())
        tables = sum(p.numel() for p in model.embeddings.parameters())
        attention = sum(
            p.numel() for layer in model.encoder.layer for p in layer.attention.parameters()
        )
        pooler = sum(p.numel() for p in model.pooler.parameters())
        values |= {
            f"{name}_millions": total / 1e6,
            f"{name}_tables": tables / total,
            f"{name}_attention": attention / total,
            f"{name}_wide": (total - tables - attention - pooler) / total,
        }
    return values


def _frozen() -> Mapping[str, Any]:
    """Sentiment with the pooler's vectors as they come, heads alone trained, and a constant."""
    runs = [run for run in committed_runs(["frozen-1e-3"]) if run.config["profile"] == "paper"]
    estimate = Evidence(runs).estimate({"frozen-1e-3": 1}, SENTIMENT.name)
    labels = runs[0].labels[SENTIMENT.name]
    return {
        "score": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "seeds": len(runs),
        "encoders": {run.config["encoder"] for run in runs},
        "epochs": {run.config["epochs"] for run in runs},
        "constant": np.bincount(labels.astype(int)).max() / len(labels),
    }


FINDINGS = (
    Finding(
        "**What the paper said.** Its authors wrote three parts of BERT (attention, embeddings, "
        "add and norm) and took the rest from the course's starter code. They give no number for "
        "the parts: a part that is right shows as nothing at all. That is why this chapter "
        "compares every stage with an independent library."
    ),
    Finding(
        "**Attention gives BERT its fame, not its size.** BERT-base, the paper's encoder, has "
        "{base_millions:.0f} million parameters: {base_wide:.0%} are feed-forward, "
        "{base_attention:.0%} attention, {base_tables:.0%} embeddings. In `minilm-l6`, the encoder "
        "of our runs on the real corpora, {mini_tables:.0%} of {mini_millions:.0f} million are "
        "embeddings.",
        _sizes,
        lambda v: v["base_wide"] > 0.5 > v["base_attention"] and v["mini_tables"] > 0.5,
    ),
    Finding(
        "**Right weights are a start, not an answer.** We froze `minilm-l6` at its public weights "
        "and trained only the heads, on its pooler's vectors. That reaches {score:.3f} in "
        "sentiment in ten epochs (95 % interval {low:.3f} to {high:.3f}; {seeds} seeds). Always "
        "giving the most frequent label reaches {constant:.3f}. So loading every tensor brings "
        "little by itself. A likely reason lies in this encoder: it was trained on the mean of its "
        "tokens, which sends its pooler no gradient. Chapter 04 shows what training the encoder "
        "itself brings.",
        _frozen,
        lambda v: (
            v["low"] > v["constant"]
            and v["score"] < 0.36
            and v["encoders"] == {"minilm-l6"}
            and v["epochs"] == {10}
        ),
    ),
)
