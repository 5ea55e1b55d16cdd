"""Write data/models/tiny and data/models/tiny-pretrained from the embedded training sentences.

Run it again whenever `data/handbook/` changes: `python scripts/build_tiny_encoder.py` (about one
minute). `tiny` is a vocabulary and a configuration; its weights are random. `tiny-pretrained` has
learned, from the sentences alone, to tell from the sentence vector which words and which pairs of
neighbouring words a sentence holds, so that it knows "not dull" from "dull": the part that masked
words play for the real BERT (Devlin et al., 2019, section 3.1), at a cost that a class can pay.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mtl_lib.bert import BertModel
from mtl_lib.data import Batch, BatchStream, SentenceExample, tokenize
from mtl_lib.fast.packed import sentence_vectors
from mtl_lib.handbook.tiny import build_tiny
from mtl_lib.methods.rates import linear_warmup
from mtl_lib.optim import AdamW
from mtl_lib.pretrained import TINY, load_encoder, save_encoder
from mtl_lib.study.corpora import load_corpus, training_sentences
from mtl_lib.tasks import SENTIMENT

STEPS, BATCH_SIZE, RATE, SEED = 2000, 64, 2e-3, 0
COMMON = 50  # a pair of neighbouring words is learned if it occurs this often


def pair_columns(sentences: list[Tensor], words: int) -> Tensor:
    """A column for each pair of neighbouring words `[V * V]`, after those of the V words.

    Rare pairs share the last column, which is not learned.
    """
    pairs = torch.cat([ids[:-1] * words + ids[1:] for ids in sentences])
    common = (torch.bincount(pairs, minlength=words**2) >= COMMON).nonzero().squeeze(1)
    columns = torch.full((words**2,), words + len(common))
    columns[common] = torch.arange(len(common)) + words
    return columns


def word_loss(model: BertModel, head: nn.Linear, columns: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropy over words and pairs, summed over both, mean over sentences."""
    ids, mask = batch.input_ids, batch.attention_mask  # [B, L]
    logits = head(sentence_vectors(model, ids, mask))  # [B, columns]
    rare = head.out_features
    pairs = columns[ids[:, :-1] * model.config.vocab_size + ids[:, 1:]]  # [B, L - 1]
    pairs = pairs.where(mask[:, 1:].bool(), rare)  # no pairs with padding
    present = logits.new_zeros(len(batch), rare + 1)
    present.scatter_(1, ids, mask.float()).scatter_(1, pairs, 1.0)
    loss = F.binary_cross_entropy_with_logits(logits, present[:, :rare], reduction="sum")
    return loss / len(batch)


def pretrain(sentences: list[str]) -> None:
    """Train `tiny` on the sentences and save it as `tiny-pretrained`."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    model, tokenizer = load_encoder("tiny")  # in eval mode: without dropout it learns far faster
    # The labels are not looked at: any value will do.
    examples = [SentenceExample(str(i), text, 0) for i, text in enumerate(sentences)]
    split = tokenize(examples, SENTIMENT, tokenizer, max_length=64)
    columns = pair_columns(split.sentences[0], model.config.vocab_size)
    head = nn.Linear(model.config.hidden_size, int(columns.max()))
    nn.init.constant_(head.bias, -4.0)  # nearly every word is absent from nearly every sentence
    stream = BatchStream(split, BATCH_SIZE, SEED)
    optimizer = AdamW([*model.parameters(), *head.parameters()], lr=RATE)
    for step in tqdm(range(1, STEPS + 1), unit="step", disable=None):
        optimizer.param_groups[0]["lr"] = RATE * linear_warmup(step, STEPS // 10, STEPS)
        loss = word_loss(model, head, columns, next(stream))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokenizer.no_truncation()  # as in `tiny`, whose file it shares
    save_encoder(TINY.parent / "tiny-pretrained", model, tokenizer)
    print(
        f"{head.out_features} words and pairs; loss at the end {loss.item():.2f} nats per sentence"
    )


def main() -> None:
    sentences = training_sentences(load_corpus("handbook"))
    build_tiny(sentences)
    pretrain(sorted(set(sentences)))


if __name__ == "__main__":
    main()
