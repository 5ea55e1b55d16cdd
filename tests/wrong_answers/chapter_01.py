"""Answers to the exercises of chapter 01."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from wrong_answers.bank import Bank

from mtl_lib.handbook.checks.chapter_01 import QUESTIONS

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT

# scores


@right("scores")
def einsum(q, k):
    return torch.einsum("...id,...jd->...ij", q, k) / q.size(-1) ** 0.5


@right("scores")
def scaled_before(q, k):
    d = k.shape[-1]
    return torch.matmul(q / d**0.25, (k / d**0.25).mT)


@right("scores")
def loops_over_pairs(q, k):
    rows = []
    for i in range(q.shape[-2]):
        row = [(q[..., i, :] * k[..., j, :]).sum(-1) for j in range(k.shape[-2])]
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2) / math.sqrt(q.shape[-1])


@right("scores")
def in_double(query, key):
    product = query.double() @ key.double().swapaxes(-1, -2)
    return product * torch.rsqrt(torch.tensor(float(query.shape[-1])))


@wrong("scores", "division is missing")
def no_root(q, k):
    return torch.einsum("...id,...jd->...ij", q, k)


@wrong("scores", "not by its square root")
def by_d(q, k):
    return torch.matmul(q, k.mT) / k.size(-1)


@wrong("scores", "hidden size of all heads")
def by_root_of_hidden(q, k):
    hidden = q.shape[-1] if q.dim() == 2 else q.shape[-1] * q.shape[-3]
    return q @ k.mT / np.sqrt(hidden)


@wrong("scores", "number of tokens")
def by_root_of_tokens(q, k):
    return q @ k.mT / math.sqrt(k.shape[-2])


@wrong("scores", "by 8 whatever D is")
def by_root_of_bert_base(q, k):
    return q @ k.mT / math.sqrt(64)


@wrong("scores", "by 2 whatever D is")
def by_root_of_the_toy(q, k):
    return q @ k.mT / math.sqrt(4)


@wrong("scores", "divides by 2 D")
def power_of_one_then_half(q, k):
    return q @ k.mT / q.shape[-1] ** 1 / 2


@wrong("scores", "half of D")
def power_of_one_then_half_in_brackets(q, k):
    return q @ k.mT / (q.shape[-1] ** 1 / 2)


@wrong("scores", "multiplies by the root")
def times_root(q, k):
    return q @ k.mT * math.sqrt(q.shape[-1])


@wrong("scores", "Keys run down")
def keys_down(q, k):
    return k @ q.mT / math.sqrt(q.shape[-1])


@wrong("scores", "weights already")
def with_softmax(q, k):
    return F.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1)


@wrong("scores", "cosines")
def cosines(q, k):
    return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT


@wrong("scores", "two dimensions only")
def plain_t(q, k):
    return q @ k.T / math.sqrt(q.shape[-1])


@wrong("scores", "count from the end")
def transposed_1_2(q, k):
    return q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])


@wrong("scores", "three sentences, no heads")
def right_with_two_or_four_dimensions(q, k):
    return q @ (k.T if k.dim() == 2 else k.transpose(2, 3)) / q.shape[-1] ** 0.5


@wrong("scores", None)
def elementwise(q, k):
    return q * k / math.sqrt(q.shape[-1])


@wrong("scores", "detached")
def numpy_scores(q, k):
    return torch.tensor(q.numpy() @ np.swapaxes(k.numpy(), -1, -2) / math.sqrt(q.shape[-1]))


@wrong("scores", "detached")
def wrapped_anew(q, k):
    return torch.tensor((q @ k.mT / math.sqrt(q.shape[-1])).tolist())


@wrong("scores", "gradient of k")
def key_detached(q, k):
    return q @ k.detach().mT / math.sqrt(q.shape[-1])


@wrong("scores", "changes its input `q`")
def divides_in_place(q, k):
    q /= math.sqrt(q.shape[-1])
    return q @ k.mT


@wrong("scores", None)
def whole_root(q, k):
    return q @ k.mT / max(1, int(math.sqrt(q.shape[-1])) - 1)


@wrong("scores", None)
def first_sentence_only(q, k):
    one = q.reshape(-1, *q.shape[-2:])[0] @ k.reshape(-1, *k.shape[-2:])[0].T
    return (one / math.sqrt(q.shape[-1])).expand(*q.shape[:-1], q.shape[-2])


@wrong("scores", None)
def clamped(q, k):
    return (q @ k.mT / math.sqrt(q.shape[-1])).clamp(-1, 1)


@wrong("scores", "cannot be called as the task says")
def takes_three(q, k, v):
    return q @ k.mT / math.sqrt(q.shape[-1])


# mask_scores


@right("mask_scores")
def additive_minus_10000(s, mask):
    return s + (1.0 - mask[:, None, None, :].float()) * -10000.0


@right("mask_scores")
def where(s, mask):
    b, a, q, k = s.shape
    keep = mask.view(b, 1, 1, k).expand(b, a, q, k).bool()
    return torch.where(keep, s, torch.tensor(-1e9))


@right("mask_scores")
def sentence_by_sentence(s, mask):
    s = s.clone()
    for b in range(len(s)):
        for key in range(s.shape[-1]):
            if mask[b, key] == 0:
                s[b, :, :, key] = -1e30
    return s


@wrong("mask_scores", "comes after a softmax")
def weights_times_mask(s, mask):
    weights = torch.softmax(s, dim=3)
    return weights * mask.unsqueeze(1).unsqueeze(2)


@wrong("mask_scores", "sign is flipped")
def fill_where_one(s, mask):
    return s.masked_fill(mask[:, None, None, :].bool(), -1e9)


@wrong("mask_scores", "sign is flipped")
def additive_flipped(s, mask):
    return s + mask[:, None, None] * -10000.0


@wrong("mask_scores", "minus missing")
def minus_forgotten(s, mask):
    return s.masked_fill(mask[:, None, None, :] == 0, 1e9)


@wrong("mask_scores", "hides queries")
def query_rows(s, mask):
    return s.masked_fill(mask[:, None, :, None] == 0, -1e30)


@wrong("mask_scores", "queries at padding tokens too")
def both(s, mask):
    pairs = mask[:, :, None] * mask[:, None, :]
    return s.masked_fill(pairs[:, None] == 0, torch.finfo(s.dtype).min)


@wrong("mask_scores", "0, or nearly")
def multiplied(s, mask):
    return torch.einsum("bhij,bj->bhij", s, mask.float())


@wrong("mask_scores", "0, or nearly")
def smallest_positive(s, mask):
    return s.masked_fill(mask[:, None, None, :] == 0, torch.finfo(s.dtype).tiny)


@wrong("mask_scores", "minus infinity")
def minus_infinity(s, mask):
    s = s.clone()
    s[mask[:, None, None, :].expand_as(s) == 0] = float("-inf")
    return s


@wrong("mask_scores", "minus infinity")
def log_of_mask(s, mask):
    return s + mask[:, None, None, :].float().log()


@wrong("mask_scores", "adds the mask itself")
def plus_mask(s, mask):
    return s + mask[:, None, None, :]


@wrong("mask_scores", "Nothing is masked")
def forgot(s, mask):
    s.masked_fill(mask[:, None, None, :] == 0, -1e9)
    return s


@wrong("mask_scores", "weights already")
def masked_and_softmaxed(s, mask):
    return s.masked_fill(mask[:, None, None, :] == 0, -1e9).softmax(-1)


@wrong("mask_scores", "-100 is not low enough")
def minus_one_hundred_added(s, mask):
    return s + (1.0 - mask.float())[:, None, None, :] * -100


@wrong("mask_scores", "-100 is not low enough")
def minus_one_hundred(s, mask):
    return s.masked_fill(mask[:, None, None, :] == 0, -100.0)


@wrong("mask_scores", None)
def minus_ten(s, mask):
    return s - 10 * (1 - mask[:, None, None, :])


@wrong("mask_scores", "changes its input `s`")
def in_place(s, mask):
    return s.masked_fill_(mask[:, None, None, :] == 0, -1e9)


@wrong("mask_scores", None)
def broadcasts_over_heads_by_luck(s, mask):
    return s.masked_fill(mask[None, :, None, :] == 0, -1e9) if len(s) == s.shape[1] else s


@wrong("mask_scores", None)
def same_mask_for_all(s, mask):
    return s.masked_fill(mask[0] == 0, -1e9)


@wrong("mask_scores", "RuntimeError")
def mask_as_is(s, mask):
    return s.masked_fill(mask == 0, -1e9)


@wrong("mask_scores", "detached")
def detached_mask(s, mask):
    return s.detach().masked_fill(mask[:, None, None, :] == 0, -1e9)


@wrong("mask_scores", None)
def length_of_padding(s, mask):
    s = s.clone()
    for row, length in zip(s, mask.sum(1), strict=True):
        row[:, :, int(length) :] = -1e9
    return s


@wrong("mask_scores", None)
def nan_to_zero(s, mask):
    filled = s.masked_fill(mask[:, None, None, :] == 0, float("nan"))
    return filled.nan_to_num(0.0) * 2


@wrong("mask_scores", None)
def inverted_by_tilde(s, mask):
    return s + ~mask[:, None, None, :] * -10000.0


@wrong("mask_scores", "got a dict, expected a tensor")
def returns_both(s, mask):
    return {"scores": s.masked_fill(mask[:, None, None, :] == 0, -1e9)}


# split_heads


@right("split_heads")
def reshape_permute(x, heads):
    b, length, h = x.size()
    return x.reshape(b, length, heads, h // heads).permute(0, 2, 1, 3).contiguous()


@right("split_heads")
def chunks(x, heads):
    return torch.stack(x.chunk(heads, dim=-1), dim=1)


@right("split_heads")
def slices(x, heads):
    d = x.shape[-1] // heads
    return torch.cat([x[:, None, :, i * d : (i + 1) * d] for i in range(heads)], dim=1)


@right("split_heads")
def unflatten(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


@wrong("split_heads", "tokens are mixed")
def final_shape_at_once(x, heads):
    b, length, h = x.shape
    return x.view(b, heads, length, h // heads)


@wrong("split_heads", "stripes")
def every_other_number(x, heads):
    return torch.stack([x[:, :, i::heads] for i in range(heads)], dim=1)


@wrong("split_heads", "sentences of the batch")
def heads_in_front_of_the_batch(x, heads):
    b, length, h = x.shape
    return x.reshape(heads, b, length, h // heads).permute(1, 0, 2, 3)


@wrong("split_heads", "still stand behind")
def never_moved(x, heads):
    return x.view(x.shape[0], x.shape[1], heads, -1)


@wrong("split_heads", "exchanged")
def tokens_last(x, heads):
    return x.view(x.shape[0], x.shape[1], heads, -1).permute(0, 2, 3, 1)


@wrong("split_heads", "heads come before the sentences")
def heads_first(x, heads):
    return torch.stack(torch.split(x, x.shape[2] // heads, dim=2))


@wrong("split_heads", "tokens are mixed")
def features_first(x, heads):
    b, length, h = x.shape
    return x.transpose(1, 2).reshape(b, heads, length, h // heads)


@wrong("split_heads", "RuntimeError")
def view_twice(x, heads):
    return x.transpose(1, 2).view(x.shape[0], heads, x.shape[1], -1)


@wrong("split_heads", None)
def size_and_number_exchanged(x, heads):
    b, length, h = x.shape
    return x.view(b, length, h // heads, heads).transpose(1, 2)


@wrong("split_heads", "detached")
def split_in_numpy(x, heads):
    return np.stack(np.split(x.numpy(), heads, axis=-1), axis=1)


@wrong("split_heads", None)
def twelve_heads(x, heads):
    return x.view(x.shape[0], x.shape[1], 2, -1).transpose(1, 2)


@wrong("split_heads", None)
def first_sentence_repeated(x, heads):
    split = torch.stack(x[:1].chunk(heads, dim=-1), dim=1)
    return split.expand(len(x), -1, -1, -1)


@wrong("split_heads", None)
def pieces_in_reverse(x, heads):
    return torch.stack(x.chunk(heads, dim=-1)[::-1], dim=1)


# attend


@right("attend")
def with_einsum(q, k, v, mask, dropout):
    s = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
    s = s + (1.0 - mask[:, None, None].to(s)) * -1e9
    w = dropout(torch.softmax(s, -1))
    return torch.einsum("bhij,bhjd->bhid", w, v)


@right("attend")
def softmax_by_hand(q, k, v, mask, dropout):
    s = q @ k.mT / math.sqrt(q.shape[-1])
    e = (s - s.amax(-1, keepdim=True)).exp() * mask[:, None, None, :]
    w = e / e.sum(-1, keepdim=True).clamp(min=1e-20)
    return dropout(w) @ v


@right("attend")
def head_by_head(q, k, v, mask, dropout):
    weights = []
    for h in range(q.shape[1]):
        s = torch.bmm(q[:, h], k[:, h].mT) / math.sqrt(q.shape[-1])
        weights.append(s.masked_fill(mask[:, None, :] == 0, -1e30).softmax(-1))
    return dropout(torch.stack(weights, 1)).matmul(v)


@right("attend")
def scale_after_a_finite_mask(q, k, v, mask, dropout):
    s = (q @ k.mT).masked_fill(mask[:, None, None, :] == 0, -1e9) / math.sqrt(q.shape[-1])
    return dropout(s.softmax(-1)) @ v


def _masked(q, k, mask, low=-1e9):
    return (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(mask[:, None, None, :] == 0, low)


@wrong("attend", "Dropout is never applied")
def dropout_forgotten(q, k, v, mask, dropout):
    return _masked(q, k, mask).softmax(-1) @ v


@wrong("attend", "Dropout is never applied")
def torchs_own(q, k, v, mask, dropout):
    low = torch.where(mask[:, None, None, :] == 0, -1e9, 0.0)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=low)


@wrong("attend", "Dropout falls on the scores")
def dropout_before_softmax(q, k, v, mask, dropout):
    return dropout(_masked(q, k, mask)).softmax(-1) @ v


@wrong("attend", "Dropout falls on the scores")
def dropout_before_mask(q, k, v, mask, dropout):
    s = dropout(q @ k.mT / math.sqrt(q.shape[-1]))
    return s.masked_fill(mask[:, None, None, :] == 0, -1e9).softmax(-1) @ v


@wrong("attend", "Dropout falls on the result")
def dropout_after(q, k, v, mask, dropout):
    return dropout(_masked(q, k, mask).softmax(-1) @ v)


@wrong("attend", "Dropout falls on the values")
def dropout_on_values(q, k, v, mask, dropout):
    return _masked(q, k, mask).softmax(-1) @ dropout(v)


@wrong("attend", "over the queries")
def softmax_over_queries(q, k, v, mask, dropout):
    return dropout(_masked(q, k, mask).softmax(-2)) @ v


@wrong("attend", "over the heads")
def softmax_over_heads(q, k, v, mask, dropout):
    return dropout(_masked(q, k, mask).softmax(dim=1)) @ v


@wrong("attend", "mask comes after the softmax")
def mask_late(q, k, v, mask, dropout):
    w = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    return dropout(w * mask[:, None, None, :]) @ v


@wrong("attend", "Nothing is masked")
def mask_ignored(q, k, v, mask, dropout):
    return dropout((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)) @ v


@wrong("attend", "flipped")
def mask_flipped(q, k, v, mask, dropout):
    s = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(mask[:, None, None, :] == 1, -1e30)
    return dropout(s.softmax(-1)) @ v


@wrong("attend", "not divided by the root")
def unscaled(q, k, v, mask, dropout):
    return dropout((q @ k.mT).masked_fill(mask[:, None, None] == 0, -1e30).softmax(-1)) @ v


@wrong("attend", "no softmax")
def without_softmax(q, k, v, mask, dropout):
    return dropout(_masked(q, k, mask, torch.finfo(q.dtype).min)) @ v


@wrong("attend", "root of D twice")
def scaled_twice(q, k, v, mask, dropout):
    return dropout(_masked(q / math.sqrt(q.shape[-1]), k, mask).softmax(-1)) @ v


@wrong("attend", "minus infinity")
def infinite(q, k, v, mask, dropout):
    return dropout(_masked(q, k, mask, float("-inf")).softmax(-1)) @ v


@wrong("attend", "dropout of its own")
def own_dropout_always_on(q, k, v, mask, dropout):
    return F.dropout(_masked(q, k, mask).softmax(-1), 0.1) @ v


@wrong("attend", None)
def dropout_twice(q, k, v, mask, dropout):
    return dropout(dropout(_masked(q, k, mask).softmax(-1))) @ v


@wrong("attend", None)
def renormalised_after_dropout(q, k, v, mask, dropout):
    w = dropout(_masked(q, k, mask).softmax(-1))
    return w / w.sum(-1, keepdim=True).clamp(min=1e-9) @ v


@wrong("attend", None)
def v_for_k(q, k, v, mask, dropout):
    return dropout(_masked(q, v, mask).softmax(-1)) @ v


@wrong("attend", "expected shape")
def heads_merged(q, k, v, mask, dropout):
    out = dropout(_masked(q, k, mask).softmax(-1)) @ v
    return out.transpose(1, 2).flatten(2)


@wrong("attend", None)
def weights_detached(q, k, v, mask, dropout):
    return dropout(_masked(q, k, mask).softmax(-1)).detach() @ v


@wrong("attend", None)
def max_in_place_of_softmax(q, k, v, mask, dropout):
    s = _masked(q, k, mask)
    return dropout((s == s.amax(-1, keepdim=True)).float()) @ v


@wrong("attend", None)
def right_in_evaluation_only(q, k, v, mask, dropout):
    w = _masked(q, k, mask).softmax(-1)
    return dropout(w.mean(1, keepdim=True)).expand_as(w) @ v if dropout(w) is not w else w @ v


# SelfAttention


class _Maps(nn.Module):
    """Three linear maps and a dropout, as asked."""

    def __init__(self, config):
        super().__init__()
        H, self.heads = config.hidden_size, config.num_attention_heads
        self.query = nn.Linear(H, H)
        self.key = nn.Linear(H, H)
        self.value = nn.Linear(H, H)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def cut(self, x):
        B, L, H = x.shape
        return x.view(B, L, self.heads, H // self.heads).permute(0, 2, 1, 3)

    def weights(self, hidden, mask):
        q, k = self.cut(self.query(hidden)), self.cut(self.key(hidden))
        return self.dropout(_masked(q, k, mask).softmax(-1))


@right("SelfAttention")
class WithEinsum(_Maps):
    def forward(self, hidden, attention_mask):
        v = self.value(hidden).unflatten(-1, (self.heads, -1))  # [B, L, A, D]
        weights = self.weights(hidden, attention_mask)
        return torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2)


@right("SelfAttention")
class HeadByHead(_Maps):
    """The weights of a head at a time; in training each head drops its own."""

    def forward(self, hidden, attention_mask):
        size, found = hidden.shape[-1] // self.heads, []
        for head in range(self.heads):
            own = slice(head * size, (head + 1) * size)
            q, k, v = (m(hidden)[..., own] for m in (self.query, self.key, self.value))
            low = (1.0 - attention_mask[:, None, :].to(q)) * -1e9
            weights = (q @ k.mT / size**0.5 + low).softmax(-1)
            found.append(self.dropout(weights) @ v)
        return torch.cat(found, dim=-1)


@right("SelfAttention")
class KeepsItsConfig(_Maps):
    def __init__(self, config):
        super().__init__(config)
        self.config = config
        self.D = int(config.hidden_size / config.num_attention_heads)

    def forward(self, hidden, attention_mask=None):
        context = self.weights(hidden, attention_mask) @ self.cut(self.value(hidden))
        B, A, L, D = context.shape
        return context.permute(0, 2, 1, 3).contiguous().view(B, L, A * self.D)


@wrong("SelfAttention", "never used")
class DropoutForgotten(_Maps):
    def forward(self, hidden, attention_mask):
        q, k, v = (self.cut(m(hidden)) for m in (self.query, self.key, self.value))
        return (_masked(q, k, attention_mask).softmax(-1) @ v).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "falls on the result")
class DropoutAtTheEnd(_Maps):
    def forward(self, hidden, attention_mask):
        q, k, v = (self.cut(m(hidden)) for m in (self.query, self.key, self.value))
        context = (_masked(q, k, attention_mask).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.dropout(context)


@wrong("SelfAttention", "hidden_dropout_prob")
class RateOfTheOther(WithEinsum):
    def __init__(self, config):
        super().__init__(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)


@wrong("SelfAttention", "mask is not used")
class NoMask(_Maps):
    def forward(self, hidden, attention_mask):
        weights = self.weights(hidden, torch.ones(hidden.shape[:2]))
        return (weights @ self.cut(self.value(hidden))).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "one head over all")
class OneHead(_Maps):
    def forward(self, hidden, attention_mask):
        q, k, v = (m(hidden) for m in (self.query, self.key, self.value))
        s = q @ k.mT / math.sqrt(q.shape[-1])
        s = s.masked_fill(attention_mask[:, None, :] == 0, -1e9)
        return self.dropout(s.softmax(-1)) @ v


@wrong("SelfAttention", "where the heads are cut")
class CutAtOnce(_Maps):
    def cut(self, x):
        return x.view(x.shape[0], self.heads, x.shape[1], -1)

    def forward(self, hidden, attention_mask):
        context = self.weights(hidden, attention_mask) @ self.cut(self.value(hidden))
        return context.transpose(1, 2).flatten(2)


@wrong("SelfAttention", "put together")
class MergedAtOnce(_Maps):
    def forward(self, hidden, attention_mask):
        context = self.weights(hidden, attention_mask) @ self.cut(self.value(hidden))
        return context.reshape(hidden.shape)


@wrong("SelfAttention", "still apart")
class NeverMerged(_Maps):
    def forward(self, hidden, attention_mask):
        return self.weights(hidden, attention_mask) @ self.cut(self.value(hidden))


@wrong("SelfAttention", "exchanged")
class KeysAsk(_Maps):
    def forward(self, hidden, attention_mask):
        self_query, self_key = self.key, self.query
        q, k = self.cut(self_query(hidden)), self.cut(self_key(hidden))
        weights = self.dropout(_masked(q, k, attention_mask).softmax(-1))
        return (weights @ self.cut(self.value(hidden))).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "Keys and values are exchanged")
class ValuesAreCompared(_Maps):
    def forward(self, hidden, attention_mask):
        q, k, v = (self.cut(m(hidden)) for m in (self.query, self.value, self.key))
        weights = self.dropout(_masked(q, k, attention_mask).softmax(-1))
        return (weights @ v).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "used more than once")
class CopiedLine(_Maps):
    def forward(self, hidden, attention_mask):
        q, k, v = (self.cut(m(hidden)) for m in (self.query, self.query, self.value))
        weights = self.dropout(_masked(q, k, attention_mask).softmax(-1))
        return (weights @ v).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "map `value` is not used")
class HiddenAsValues(_Maps):
    def forward(self, hidden, attention_mask):
        return (self.weights(hidden, attention_mask) @ self.cut(hidden)).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "root of H")
class RootOfHidden(_Maps):
    def forward(self, hidden, attention_mask):
        q, k, v = (self.cut(m(hidden)) for m in (self.query, self.key, self.value))
        s = q @ k.mT / math.sqrt(hidden.shape[-1])
        s = s.masked_fill(attention_mask[:, None, None] == 0, -1e30)
        return (self.dropout(s.softmax(-1)) @ v).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "adds the input")
class Residual(WithEinsum):
    def forward(self, hidden, attention_mask):
        return super().forward(hidden, attention_mask) + hidden


@wrong("SelfAttention", "no bias")
class NoBias(WithEinsum):
    def __init__(self, config):
        super().__init__(config)
        H = config.hidden_size
        self.query, self.key, self.value = (nn.Linear(H, H, bias=False) for _ in range(3))


@wrong("SelfAttention", "dense.weight does not belong there")
class WithOutputProjection(WithEinsum):
    def __init__(self, config):
        super().__init__(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden, attention_mask):
        return self.dense(super().forward(hidden, attention_mask))


@wrong("SelfAttention", "query.weight is missing")
class NamesOfItsOwn(nn.Module):
    def __init__(self, config):
        super().__init__()
        H = config.hidden_size
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(H, H) for _ in range(3))


@wrong("SelfAttention", "cannot assign module before")
class NoSuper(nn.Module):
    def __init__(self, config):
        self.query = nn.Linear(config.hidden_size, config.hidden_size)


@wrong("SelfAttention", None)
class DropsTwice(WithEinsum):
    def weights(self, hidden, mask):
        return self.dropout(super().weights(hidden, mask))


@wrong("SelfAttention", "falls on the values")
class DropsValues(_Maps):
    def forward(self, hidden, attention_mask):
        q, k, v = (self.cut(m(hidden)) for m in (self.query, self.key, self.value))
        weights = _masked(q, k, attention_mask).softmax(-1)
        return (weights @ self.dropout(v)).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "drops in evaluation too")
class DropsAlways(_Maps):
    def forward(self, hidden, attention_mask):
        q, k, v = (self.cut(m(hidden)) for m in (self.query, self.key, self.value))
        weights = F.dropout(_masked(q, k, attention_mask).softmax(-1), 0.1)
        return (weights @ v).transpose(1, 2).flatten(2)


@wrong("SelfAttention", "no nn.Dropout")
class FunctionalDropout(_Maps):
    def __init__(self, config):
        super().__init__(config)
        del self.dropout

    def forward(self, hidden, attention_mask):
        q, k, v = (self.cut(m(hidden)) for m in (self.query, self.key, self.value))
        weights = F.dropout(_masked(q, k, attention_mask).softmax(-1), 0.4, self.training)
        return (weights @ v).transpose(1, 2).flatten(2)


@wrong("SelfAttention", None)
class ValuesCutFromTheGraph(_Maps):
    def forward(self, hidden, attention_mask):
        v = self.cut(self.value(hidden)).detach()
        return (self.weights(hidden, attention_mask) @ v).transpose(1, 2).flatten(2)


# mended_attention


def _parts(hidden, heads, *matrices):
    return (torch.stack((hidden @ W).chunk(heads, dim=-1), dim=1) for W in matrices)


@right("mended_attention")
def program_with_chunks(hidden, mask, W_q, W_k, W_v, heads):
    q, k, v = _parts(hidden, heads, W_q, W_k, W_v)
    context = _masked(q, k, mask).softmax(-1) @ v
    return torch.cat(list(context.unbind(1)), dim=-1)


@right("mended_attention")
def program_of_torch(hidden, mask, W_q, W_k, W_v, heads):
    q, k, v = _parts(hidden, heads, W_q, W_k, W_v)
    seen = mask[:, None, None, :].bool()
    return F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2)


@right("mended_attention")
def hides_queries_of_padding_too(hidden, mask, W_q, W_k, W_v, heads):
    q, k, v = _parts(hidden, heads, W_q, W_k, W_v)
    s = q @ k.mT / math.sqrt(q.shape[-1])
    pairs = (mask[:, :, None] * mask[:, None, :])[:, None]
    context = s.masked_fill(pairs == 0, -1e9).softmax(-1) @ v
    return context.transpose(1, 2).reshape(hidden.shape)


def _half_mended(hidden, mask, matrices, heads, root=True, keys=True, merge=True):
    q, k, v = _parts(hidden, heads, *matrices)
    s = q @ k.mT / (q.shape[-1] if root else hidden.shape[-1]) ** 0.5
    unseen = (mask[:, None, None, :] if keys else mask[:, None, :, None]) == 0
    context = s.masked_fill(unseen, torch.finfo(s.dtype).min).softmax(-1) @ v
    return (context.transpose(1, 2) if merge else context).reshape(hidden.shape)


@wrong("mended_attention", "All three bugs are still there")
def as_given(hidden, mask, W_q, W_k, W_v, heads):
    matrices = (W_q, W_k, W_v)
    return _half_mended(hidden, mask, matrices, heads, root=False, keys=False, merge=False)


@wrong("mended_attention", "Two bugs are left. With several heads its weights are too even")
def only_merge_mended(hidden, mask, W_q, W_k, W_v, heads):
    return _half_mended(hidden, mask, (W_q, W_k, W_v), heads, root=False, keys=False)


@wrong("mended_attention", "One bug is left. A word's vector changes")
def mask_left(hidden, mask, W_q, W_k, W_v, heads):
    return _half_mended(hidden, mask, (W_q, W_k, W_v), heads, keys=False)


@wrong("mended_attention", "One bug is left. With several heads a word's vector holds")
def merge_left(hidden, mask, W_q, W_k, W_v, heads):
    return _half_mended(hidden, mask, (W_q, W_k, W_v), heads, merge=False)


@wrong("mended_attention", "One bug is left. With several heads its weights")
def root_left(hidden, mask, W_q, W_k, W_v, heads):
    return _half_mended(hidden, mask, (W_q, W_k, W_v), heads, root=False)


@wrong("mended_attention", None)
def root_of_tokens(hidden, mask, W_q, W_k, W_v, heads):
    q, k, v = _parts(hidden, heads, W_q, W_k, W_v)
    s = (q @ k.mT / math.sqrt(q.shape[-2])).masked_fill(mask[:, None, None, :] == 0, -1e9)
    return (s.softmax(-1) @ v).transpose(1, 2).flatten(2)


@wrong("mended_attention", "expected shape")
def not_merged(hidden, mask, W_q, W_k, W_v, heads):
    q, k, v = _parts(hidden, heads, W_q, W_k, W_v)
    return _masked(q, k, mask).softmax(-1) @ v


# what_breaks

RIGHT_CHOICES = dict(zip(QUESTIONS, "bcbaa", strict=True))


@right("what_breaks")
def chosen():
    return {"no root": "b", "no mask": "c", "one head": "b", "one matrix": "a", "shuffled": "a"}


@right("what_breaks")
def in_capitals_and_another_order():
    return {name: letter.upper() for name, letter in reversed(RIGHT_CHOICES.items())}


@wrong("what_breaks", "divided by too much")
def all_a():
    return dict.fromkeys(QUESTIONS, "a")


@wrong("what_breaks", "not a factor")
def root_undone():
    return RIGHT_CHOICES | {"no root": "c"}


@wrong("what_breaks", "takes its share")
def zeros_are_nothing():
    return RIGHT_CHOICES | {"no mask": "b", "shuffled": "c"}


@wrong("what_breaks", "count them")
def fewer_parameters():
    return RIGHT_CHOICES | {"one head": "a"}


@wrong("what_breaks", "squared length")
def itself_alone():
    return RIGHT_CHOICES | {"one matrix": "b"}


@wrong("what_breaks", "where a word stands")
def front_first():
    return RIGHT_CHOICES | {"shuffled": "b"}


@wrong("what_breaks", "choose a, b or c")
def another_letter():
    return RIGHT_CHOICES | {"one head": "d"}


@wrong("what_breaks", 'no choice for "shuffled"')
def one_missing():
    return {name: letter for name, letter in RIGHT_CHOICES.items() if name != "shuffled"}


@wrong("what_breaks", "no choice for")
def a_list():
    return ["b", "c", "b", "a", "a"]
