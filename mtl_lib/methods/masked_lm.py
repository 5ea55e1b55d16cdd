"""Further pretraining: the encoder fills gaps in the task's own sentences before it learns the
task (Gururangan et al., 2020).

Shapes as in `bert.py`; besides, S sentences and M masked tokens in all of them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from mtl_lib.bert import BertModel
from mtl_lib.data import BatchStream, SentenceExample, tokenize
from mtl_lib.errors import ConfigError, NumericalError
from mtl_lib.fast import has_fast_bfloat16
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.methods.rates import linear_warmup
from mtl_lib.pretrained import SPECIAL_TOKENS
from mtl_lib.tasks import Task

IGNORED = -100  # the label of a token that is not to be predicted, as torch has it
RECORD = 100  # steps of which the mean loss is reported


@dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokenizer.

    Attributes:
        mask: the id of [MASK].
        special: ids of the special tokens, which are never masked.
        words: the other ids.
    """

    mask: int
    special: Tensor
    words: Tensor

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """Read them off a tokenizer.

        Raises:
            ConfigError: if a special token is not in it.
        """
        ids = tokenizer.get_vocab()
        if missing := [token for token in SPECIAL_TOKENS if token not in ids]:
            raise ConfigError(f"the tokenizer has no {', '.join(missing)}: take a BERT's")
        special = {ids[token] for token in SPECIAL_TOKENS}
        words = sorted(set(ids.values()) - special)
        return cls(ids["[MASK]"], torch.tensor(sorted(special)), torch.tensor(words))


def mask_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    vocabulary: Vocabulary,
    generator: torch.Generator | None = None,
    share: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """Choose 15 % of each sentence's tokens, one at least; of these make 80 % [MASK], 10 % a random
    word, and leave 10 % (Devlin et al., 2019, section 3.1, task 1, and appendix A.1).

    Args:
        input_ids: word ids, `[S, L]`.
        attention_mask: `[S, L]`, 1 for a token, 0 for padding.
        generator: draws all of it; torch's global one if None.
        share: of the tokens that are chosen, special ones not counted.

    Returns:
        The ids to be read, `[S, L]`, and the labels, `[S, L]`: the id that stood there where a
        token was chosen, `IGNORED` elsewhere.
    """
    ordinary = (attention_mask > 0) & ~torch.isin(input_ids, vocabulary.special)  # [S, L]
    wanted = (share * ordinary.sum(dim=1, keepdim=True)).round().clamp(min=1)  # [S, 1]
    draws = torch.rand(input_ids.shape, generator=generator).masked_fill(~ordinary, 2.0)
    rank = draws.argsort(dim=1).argsort(dim=1)  # of each token among its sentence's draws
    chosen = ordinary & (rank < wanted)
    fate = torch.rand(input_ids.shape, generator=generator)
    drawn = torch.randint(len(vocabulary.words), input_ids.shape, generator=generator)
    read = torch.where(chosen & (fate < 0.8), vocabulary.mask, input_ids)
    read = torch.where(chosen & (fate >= 0.9), vocabulary.words[drawn], read)
    return read, input_ids.masked_fill(~chosen, IGNORED)


class MaskedLanguageModel(nn.Module):
    """An encoder with BERT's prediction head: dense, GELU, LayerNorm, and a decoder whose matrix
    is that of the word embeddings (Devlin et al., 2019, in their code)."""

    def __init__(self, encoder: BertModel) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.dense.weight, std=config.initializer_range)
        nn.init.zeros_(self.dense.bias)
        self.to(encoder.embeddings.word_embeddings.weight.device)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the chosen tokens, a scalar in nats; all arguments `[S, L]`.

        Logits are computed where there is a label only: they are as wide as the vocabulary.
        """
        chosen = labels != IGNORED
        hidden = self.encoder(input_ids, attention_mask).last_hidden_state[chosen]  # [M, H]
        hidden = self.LayerNorm(F.gelu(self.dense(hidden)))
        words = self.encoder.embeddings.word_embeddings.weight  # [V, H]
        logits = F.linear(hidden, words, self.bias)  # [M, V]
        return F.cross_entropy(logits.float(), labels[chosen])


def further_pretrain(
    encoder: BertModel,
    tokenizer: Tokenizer,
    sentences: Iterable[str],
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 5e-5,
    seed: int = 0,
    max_length: int | None = None,
) -> list[float]:
    """Train an encoder, in place, to fill gaps in sentences; the head is new and thrown away.

    AdamW with a weight decay of 0.01, its rate up from 0 over the first tenth of the steps and down
    to 0, gradients clipped to norm 1, products in bfloat16 where the hardware is faster at them.
    The masks are drawn anew in every pass over the sentences. The pooler does not learn.

    Args:
        encoder: left in eval mode.
        tokenizer: the encoder's.
        sentences: at least one.
        steps: optimiser steps.
        batch_size: sentences a step.
        lr: the highest learning rate.
        seed: decides order, masks, dropout and the head's first weights; torch's global generator
            stands afterwards where it stood.
        max_length: tokens to keep of a sentence, no more than the encoder knows positions, which
            is what None keeps.

    Returns:
        The mean loss, in nats a chosen token, of every 100 steps, and of what is left at the end.

    Raises:
        ConfigError: if there is no sentence with a word, `max_length` is below 3, `steps` or
            `batch_size` is below 1, the tokenizer has no [MASK], or the encoder is frozen.
        NumericalError: if a loss is not finite.
    """
    positions = encoder.config.max_position_embeddings
    max_length = positions if max_length is None else min(max_length, positions)
    texts = [SentenceExample(str(n), text, None) for n, text in enumerate(sentences)]
    if max_length < 3:
        raise ConfigError(f"max_length = {max_length}: a sentence needs 3 tokens or more")
    if min(len(texts), steps, batch_size) < 1:
        given = f"{len(texts)} sentences, steps = {steps}, batch_size = {batch_size}"
        raise ConfigError(f"{given}: each must be above 0")
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError("the encoder is frozen: unfreeze it, or there is nothing to train")
    vocabulary = Vocabulary.of(tokenizer)
    task = Task("masked-lm", loss="mean_squared_error", metric="pearson")  # only to be tokenised
    split = tokenize(texts, task, tokenizer, max_length)
    special = set(vocabulary.special.tolist())  # a text without another token has no gap to fill
    ordinary = [not special.issuperset(tokens.tolist()) for tokens in split.sentences[0]]
    if not any(ordinary):
        raise ConfigError(f"{len(texts)} sentences without a word that the tokenizer knows")
    stream = BatchStream(split.take(ordinary), batch_size, seed)
    generator = torch.Generator().manual_seed(seed)
    device = encoder.embeddings.word_embeddings.weight.device
    losses: list[float] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MaskedLanguageModel(encoder).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = FusedAdamW(trained, lr=lr, weight_decay=0.01)
        bar = tqdm(range(steps), unit="step", disable=None, leave=False)
        for step in bar:
            batch = next(stream)
            read, labels = mask_tokens(
                batch.input_ids, batch.attention_mask, vocabulary, generator
            )  # [S, L] each
            with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
                loss = model(*(x.to(device) for x in (read, batch.attention_mask, labels)))
            if not math.isfinite(value := loss.item()):
                raise NumericalError(f"step {step + 1}: the loss is {value}; lower `lr`")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.param_groups[0]["lr"] = lr * linear_warmup(step + 1, steps // 10, steps + 1)
            optimizer.step()
            losses.append(value)
            bar.set_postfix(loss=f"{fmean(losses[-RECORD:]):.3f}")
    encoder.eval()
    return [fmean(losses[first : first + RECORD]) for first in range(0, steps, RECORD)]
