"""Write data/models/tiny and data/models/tiny-pretrained from the embedded training sentences.

Run it again whenever `data/handbook/` changes: `python scripts/build_tiny_encoder.py` (about one
minute). `tiny` is a vocabulary and a configuration; its weights are random. `tiny-pretrained` has
learned, from the sentences alone, to tell from the sentence vector which words a sentence holds:
the part that masked words play for the real BERT (Devlin et al., 2019, section 3.1), at a cost
that a class can pay.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mtl_lib.bert import BertModel
from mtl_lib.data import (
    Batch,
    BatchStream,
    SentenceExample,
    load_corpus,
    tokenize,
    training_sentences,
)
from mtl_lib.optim import AdamW, linear_warmup
from mtl_lib.packed import sentence_vectors
from mtl_lib.pretrained import TINY, build_tiny, load_encoder, save_encoder
from mtl_lib.tasks import SENTIMENT

STEPS, BATCH_SIZE, RATE, SEED = 2000, 64, 2e-3, 0


def word_loss(model: BertModel, head: nn.Linear, batch: Batch) -> Tensor:
    """Binary cross-entropy over the vocabulary, summed over words, mean over sentences."""
    logits = head(sentence_vectors(model, batch.input_ids, batch.attention_mask))  # [B, V]
    present = torch.zeros_like(logits).scatter_(1, batch.input_ids, batch.attention_mask.float())
    return F.binary_cross_entropy_with_logits(logits, present, reduction="sum") / len(batch)


def pretrain(sentences: list[str]) -> None:
    """Train `tiny` on the sentences and save it as `tiny-pretrained`."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    model, tokenizer = load_encoder("tiny")  # in eval mode: without dropout it learns far faster
    head = nn.Linear(model.config.hidden_size, model.config.vocab_size)
    nn.init.constant_(head.bias, -4.0)  # nearly every word is absent from nearly every sentence
    # The labels are not looked at: any value will do.
    examples = [SentenceExample(str(i), text, 0) for i, text in enumerate(sentences)]
    split = tokenize(examples, SENTIMENT, tokenizer, max_length=64)
    stream = BatchStream(split, BATCH_SIZE, SEED)
    optimizer = AdamW([*model.parameters(), *head.parameters()], lr=RATE)
    for step in tqdm(range(1, STEPS + 1), unit="step", disable=None):
        optimizer.param_groups[0]["lr"] = RATE * linear_warmup(step, STEPS // 10, STEPS)
        loss = word_loss(model, head, next(stream))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_encoder(TINY.parent / "tiny-pretrained", model, tokenizer)
    print(f"loss at the end: {loss.item():.2f} nats per sentence")


def main() -> None:
    sentences = training_sentences(load_corpus("handbook"))
    build_tiny(sentences)
    pretrain(sorted(set(sentences)))


if __name__ == "__main__":
    main()
