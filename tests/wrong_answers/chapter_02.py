"""Answers to the exercises of chapter 02."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from wrong_answers.bank import Bank

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT

# layer_norm


@right("layer_norm")
def with_var(x, weight, bias, eps=1e-12):
    mu = x.mean(-1, keepdim=True)
    var = x.var(-1, unbiased=False, keepdim=True)
    return weight * (x - mu) / torch.sqrt(var + eps) + bias


@right("layer_norm")
def squares_by_hand(x, weight, bias, eps=1e-12):
    h = x.shape[-1]
    centred = x - x.sum(dim=-1)[..., None] / h
    return centred * torch.rsqrt((centred**2).sum(-1, keepdim=True) / h + eps) * weight + bias


@right("layer_norm")
def torchs_module(x, weight, bias, eps=1e-12):
    module = nn.LayerNorm(x.shape[-1], eps=eps, elementwise_affine=False)
    return module(x) * weight + bias


@right("layer_norm")
def vector_by_vector(x, weight, bias, eps=1e-12):
    rows = [(r - r.mean()) / (r.var(correction=0) + eps) ** 0.5 for r in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows).reshape(x.shape) * weight + bias


@wrong("layer_norm", "outside the root")
def eps_outside(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, keepdim=True)
    return c / ((c**2).mean(-1, keepdim=True) ** 0.5 + eps) * weight + bias


@wrong("layer_norm", "H - 1")
def default_var(x, weight, bias, eps=1e-12):
    return (x - x.mean(-1, True)) / (x.var(-1, keepdim=True) + eps).sqrt() * weight + bias


@wrong("layer_norm", "Two things")
def default_std(x, weight, bias, eps=1e-12):
    return weight * (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + eps) + bias


@wrong("layer_norm", "Epsilon is missing")
def no_eps(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, True)
    return c / c.pow(2).mean(-1, True).sqrt() * weight + bias


@wrong("layer_norm", "by the variance")
def no_root(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, True)
    return c / (c.pow(2).mean(-1, True) + eps) * weight + bias


@wrong("layer_norm", "all numbers together")
def over_everything(x, weight, bias, eps=1e-12):
    return (x - x.mean()) / torch.sqrt(x.var(correction=0) + eps) * weight + bias


@wrong("layer_norm", "over the first dimension")
def like_batch_norm(x, weight, bias, eps=1e-12):
    c = x - x.mean(0)
    return c / (c.pow(2).mean(0) + eps).sqrt() * weight + bias


@wrong("layer_norm", "not used")
def no_weight(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, True)
    return c / (c.pow(2).mean(-1, True) + eps).sqrt()


@wrong("layer_norm", "RMSNorm")
def rms(x, weight, bias, eps=1e-12):
    return x / (x.pow(2).mean(-1, True) + eps).sqrt() * weight + bias


@wrong("layer_norm", "torch's 1e-5")
def torchs_default(x, weight, bias, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


@wrong("layer_norm", None)
def eps_ignored(x, weight, bias, eps=1e-12):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)


@wrong("layer_norm", None)
def weight_after_bias(x, weight, bias, eps=1e-12):
    c = x - x.mean(-1, True)
    return (c / (c.pow(2).mean(-1, True) + eps).sqrt() + bias) * weight


@wrong("layer_norm", None)
def last_two_dimensions(x, weight, bias, eps=1e-12):
    dims = tuple(range(max(0, x.dim() - 2), x.dim()))
    c = x - x.mean(dims, True)
    return c / (c.pow(2).mean(dims, True) + eps).sqrt() * weight + bias


@wrong("layer_norm", None)
def variance_without_gradient(x, weight, bias, eps=1e-12):
    var = x.var(-1, correction=0, keepdim=True).detach()
    return (x - x.mean(-1, True)) / (var + eps).sqrt() * weight + bias


@wrong("layer_norm", "RuntimeError")
def no_keepdim(x, weight, bias, eps=1e-12):
    return (x - x.mean(-1)) / (x.var(-1, correction=0) + eps).sqrt() * weight + bias


@wrong("layer_norm", "cannot be called")
def eps_not_taken(x, weight, bias):
    return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-12)


@wrong("layer_norm", "changes its input `x`")
def centred_in_place(x, weight, bias, eps=1e-12):
    x -= x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, True) + eps).sqrt() * weight + bias


@wrong("layer_norm", "detached")
def numpy_norm(x, weight, bias, eps=1e-12):
    x, weight, bias = x.numpy(), weight.numpy(), bias.numpy()
    c = x - x.mean(-1, keepdims=True)
    return torch.from_numpy(c / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias)


# embed

WORD = "embeddings.word_embeddings.weight"
POS = "embeddings.position_embeddings.weight"
TYPE = "embeddings.token_type_embeddings.weight"
LN = "embeddings.LayerNorm"


def _ln(state, x, eps=1e-12):
    return F.layer_norm(x, x.shape[-1:], state[LN + ".weight"], state[LN + ".bias"], eps)


@right("embed")
def functional(state, ids, types):
    words = F.embedding(ids, state[WORD])
    positions = F.embedding(torch.arange(ids.size(1)).expand_as(ids), state[POS])
    return _ln(state, words + positions + F.embedding(types, state[TYPE]))


@right("embed")
def one_hot_products(state, ids, types):
    words = F.one_hot(ids, len(state[WORD])).float() @ state[WORD]
    segments = F.one_hot(types, 2).float() @ state[TYPE]
    return _ln(state, words + segments + state[POS][: ids.shape[-1]])


@right("embed")
def token_by_token(state, ids, types):
    return torch.stack(
        [
            torch.stack(
                [
                    _ln(state, state[WORD][i] + state[POS][n] + state[TYPE][t])
                    for n, (i, t) in enumerate(zip(row, kinds, strict=True))
                ]
            )
            for row, kinds in zip(ids.tolist(), types.tolist(), strict=True)
        ]
    )


@right("embed")
def padded_positions(state, ids, types):
    mixed = state[TYPE][0] + types[..., None] * (state[TYPE][1] - state[TYPE][0])
    return _ln(state, state[WORD][ids] + state[POS][None, : ids.shape[1]] + mixed)


@wrong("embed", "left at 0")
def first_segment_only(state, ids, types):
    return _ln(state, state[WORD][ids] + state[POS][: ids.shape[1]] + state[TYPE][0])


@wrong("embed", "segments are missing")
def no_segments(state, ids, types):
    return _ln(state, state[WORD][ids] + state[POS][: ids.shape[1]])


@wrong("embed", "positions are missing")
def no_positions(state, ids, types):
    return _ln(state, F.embedding(ids, state[WORD]) + F.embedding(types, state[TYPE]))


@wrong("embed", "added twice")
def positions_twice(state, ids, types):
    x = state[WORD][ids] + state[POS][: ids.shape[1]]
    return _ln(state, x + state[TYPE][types] + state[POS][: ids.shape[1]])


@wrong("embed", "position and LayerNorm a second time")
def finished_then_again(state, ids, types):
    x = _ln(state, state[WORD][ids] + state[POS][: ids.shape[1]] + state[TYPE][types])
    return _ln(state, x + state[POS][: ids.shape[1]])


@wrong("embed", "LayerNorm is missing")
def plain_sum(state, ids, types):
    return state[WORD][ids] + state[POS][: ids.shape[1]] + state[TYPE][types]


@wrong("embed", "on the words alone")
def norm_too_early(state, ids, types):
    return _ln(state, state[WORD][ids]) + state[POS][: ids.shape[1]] + state[TYPE][types]


@wrong("embed", None)
def position_of_the_row(state, ids, types):
    return _ln(state, state[WORD][ids] + state[POS][: len(ids), None] + state[TYPE][types])


@wrong("embed", None)
def position_of_the_word(state, ids, types):
    return _ln(state, state[WORD][ids] + state[POS][ids.clamp(max=8)] + state[TYPE][types])


@wrong("embed", "count from 1")
def positions_from_1(state, ids, types):
    places = torch.arange(1, ids.shape[1] + 1).clamp(max=len(state[POS]))
    padded = torch.cat([state[POS], state[POS][-1:]])
    if ids.shape[1] == len(state[POS]):
        places = places[:-1]
    return _ln(state, state[WORD][ids] + padded[places] + state[TYPE][types])


@wrong("embed", "exchanged")
def segments_exchanged(state, ids, types):
    x = state[WORD][ids] + state[POS][: ids.shape[1]]
    return _ln(state, x + torch.where(types[..., None] == 0, state[TYPE][1], state[TYPE][0]))


@wrong("embed", None)
def padding_zeroed(state, ids, types):
    words = state[WORD][ids] * (ids != 0)[..., None]
    return _ln(state, words + state[POS][: ids.shape[1]] + state[TYPE][types])


@wrong("embed", "not used")
def norm_without_weights(state, ids, types):
    x = state[WORD][ids] + state[POS][: ids.shape[1]] + state[TYPE][types]
    return (x - x.mean(-1, True)) / (x.var(-1, correction=0, keepdim=True) + 1e-12).sqrt()


@wrong("embed", "torch's 1e-5")
def torchs_epsilon(state, ids, types):
    norm = torch.nn.LayerNorm(state[WORD].shape[1])
    norm.weight.data, norm.bias.data = state[LN + ".weight"], state[LN + ".bias"]
    return norm(state[WORD][ids] + state[POS][: ids.shape[1]] + state[TYPE][types])


@wrong("embed", None)
def epsilon_too_large(state, ids, types):
    x = state[WORD][ids] + state[POS][: ids.shape[1]] + state[TYPE][types]
    return _ln(state, x, eps=1e-2)


@wrong("embed", None)
def norm_of_each_part(state, ids, types):
    parts = state[WORD][ids], state[POS][: ids.shape[1]], state[TYPE][types]
    return sum(_ln(state, part) for part in parts)


@wrong("embed", "RuntimeError")
def all_positions(state, ids, types):
    return _ln(state, state[WORD][ids] + state[POS] + state[TYPE][types])


@wrong("embed", "KeyError")
def other_names(state, ids, types):
    return state["word_embeddings"][ids]


@wrong("embed", None)
def words_detached(state, ids, types):
    words = state[WORD][ids].detach()
    return _ln(state, words + state[POS][: ids.shape[1]] + state[TYPE][types])


# add_norm


@right("add_norm")
def step_by_step(x, residual, dense, dropout, norm):
    new = dense(x)
    new = dropout(new)
    return norm(new + residual)


@right("add_norm")
def flattened(x, residual, dense, dropout, norm):
    new = dropout(dense(x.reshape(-1, x.shape[-1])))
    return norm(residual.reshape(new.shape) + new).view(residual.shape)


@right("add_norm")
def with_torch_add(x, residual, dense, dropout, norm):
    return norm(torch.add(input=residual, other=dropout(dense(x)), alpha=1))


@wrong("add_norm", "Dropout falls on the sum")
def dropout_on_sum(x, residual, dense, dropout, norm):
    return norm(dropout(dense(x) + residual))


@wrong("add_norm", "before the linear layer")
def dropout_on_input(x, residual, dense, dropout, norm):
    return norm(dense(dropout(x)) + residual)


@wrong("add_norm", "on the residual")
def dropout_on_residual(x, residual, dense, dropout, norm):
    dropped = dropout(residual)
    return norm(dropped + dense(x))


@wrong("add_norm", "never applied")
def no_dropout(x, residual, dense, dropout, norm):
    return norm(dense(x).add(residual))


@wrong("add_norm", "comes last")
def dropout_last(x, residual, dense, dropout, norm):
    return dropout(norm(dense(x) + residual))


@wrong("add_norm", "The residual is not added")
def no_residual(x, residual, dense, dropout, norm):
    return norm(dropout(dense(x)))


@wrong("add_norm", "on the new part alone")
def norm_before_sum(x, residual, dense, dropout, norm):
    return norm(dropout(dense(x))) + residual


@wrong("add_norm", "LayerNorm is missing")
def no_norm(x, residual, dense, dropout, norm):
    return dropout(dense(x)) + residual


@wrong("add_norm", None)
def pre_norm(x, residual, dense, dropout, norm):
    if x.shape != residual.shape:
        return norm(residual + dropout(dense(x)))
    return residual + dropout(dense(norm(x)))


@wrong("add_norm", None)
def residual_twice(x, residual, dense, dropout, norm):
    return norm(2 * residual + dropout(dense(x)))


@wrong("add_norm", None)
def own_dropout(x, residual, dense, dropout, norm):
    return norm(residual + F.dropout(dense(x), 0.1))


@wrong("add_norm", None)
def own_norm(x, residual, dense, dropout, norm):
    y = residual + dropout(dense(x))
    return F.layer_norm(y, y.shape[-1:])


@wrong("add_norm", "RuntimeError")
def no_dense(x, residual, dense, dropout, norm):
    return norm(residual + dropout(x))


@wrong("add_norm", "changes its input `residual`")
def adds_in_place(x, residual, dense, dropout, norm):
    residual += dropout(dense(x))
    return norm(residual)


@wrong("add_norm", None)
def residual_detached(x, residual, dense, dropout, norm):
    return norm(residual.detach() + dropout(dense(x)))


@wrong("add_norm", None)
def roles_exchanged_where_they_fit(x, residual, dense, dropout, norm):
    if x.shape == residual.shape:
        x, residual = residual, x
    return norm(residual + dropout(dense(x)))


# load_public


def _own_name(name):
    name = name[5:] if name.startswith("bert.") else name
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")


@right("load_public")
def through_load_state_dict(model, public):
    state = {_own_name(n): t for n, t in public.items()}
    for n in [n for n in state if n.startswith("cls.") or n == "embeddings.position_ids"]:
        del state[n]
    model.load_state_dict(state)


@right("load_public")
def copies_and_compares_names(model, public):
    own = dict(model.named_parameters())
    todo = set(own)
    for name, value in public.items():
        name = _own_name(name)
        if name.startswith("cls") or "position_ids" in name:
            continue
        if name not in own or own[name].shape != value.shape:
            raise ValueError(f"cannot place {name}")
        with torch.no_grad():
            own[name].copy_(value)
        todo.discard(name)
    if todo:
        raise KeyError(f"missing: {todo}")


@right("load_public")
def lenient_then_asserts(model, public):
    state = {_own_name(n): t for n, t in public.items() if not n.startswith("cls.")}
    state.pop("embeddings.position_ids", None)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return model


@wrong("load_public", "It is not strict: missing")
def renamed_but_lenient(model, public):
    state = {_own_name(n): t for n, t in public.items()}
    model.load_state_dict(state, strict=False)


@wrong("load_public", "under other names are silently")
def lenient(model, public):
    model.load_state_dict(public, strict=False)


@wrong("load_public", "gamma and beta are silently")
def lenient_without_gamma(model, public):
    model.load_state_dict({n.removeprefix("bert."): t for n, t in public.items()}, strict=False)


@wrong("load_public", "no place in the model is left out")
def drops_the_unknown(model, public):
    own = model.state_dict()
    model.load_state_dict({_own_name(n): t for n, t in public.items() if _own_name(n) in own})


@wrong("load_public", "keeps its random start")
def update_own(model, public):
    state = model.state_dict()
    for name, value in public.items():
        if not name.startswith("cls.") and "position_ids" not in name:
            state[_own_name(name)] = value
    model.load_state_dict(state)


@wrong("load_public", "fits in name and shape")
def copies_what_fits(model, public):
    own = model.state_dict()
    for name, value in public.items():
        name = _own_name(name)
        if name in own and own[name].shape == value.shape:
            own[name].copy_(value)


@wrong("load_public", "transposed")
def transposed(model, public):
    state = {}
    for name, value in public.items():
        name = _own_name(name)
        if name.startswith("cls.") or name.endswith("position_ids"):
            continue
        if value.ndim == 2 and value.shape[0] == value.shape[1]:
            value = value.t().contiguous()
        state[name] = value
    model.load_state_dict(state)


@wrong("load_public", "begin with bert.")
def no_prefix(model, public):
    drop = "cls.", "embeddings.position_ids", "bert.embeddings.position_ids"
    state = {
        n.replace("gamma", "weight").replace("beta", "bias"): t
        for n, t in public.items()
        if not n.startswith(drop)
    }
    model.load_state_dict(state)


@wrong("load_public", "gamma and beta are not understood")
def no_gamma(model, public):
    state = {n.removeprefix("bert."): t for n, t in public.items() if not n.startswith("cls.")}
    state.pop("embeddings.position_ids", None)
    model.load_state_dict(state)


@wrong("load_public", "not left out")
def heads_kept(model, public):
    model.load_state_dict({_own_name(n): t for n, t in public.items()})


@wrong("load_public", None)
def nothing_loaded(model, public):
    pass


@wrong("load_public", "fits in name and shape")  # torch copies what fits, then raises
def errors_swallowed(model, public):
    try:
        state = {_own_name(n): t for n, t in public.items() if not n.startswith("cls.")}
        state.pop("embeddings.position_ids", None)
        model.load_state_dict(state)
    except RuntimeError:
        print("could not load")


@wrong("load_public", None)
def gamma_for_beta(model, public):
    state = {}
    for name, value in public.items():
        name = name.removeprefix("bert.").replace("gamma", "bias").replace("beta", "weight")
        if not name.startswith("cls.") and "position_ids" not in name:
            state[name] = value
    model.load_state_dict(state)


@wrong("load_public", None)
def by_order(model, public):
    values = [t for n, t in public.items() if "cls" not in n and "position_ids" not in n]
    with torch.no_grad():
        for p, value in zip(model.parameters(), values, strict=False):
            p.copy_(value)


@wrong("load_public", None)
def refuses_everything(model, public):
    raise ValueError("no")


@wrong("load_public", None)
def without_the_pooler(model, public):
    state = {_own_name(n): t for n, t in public.items() if "pooler" not in n and "cls." not in n}
    state.pop("embeddings.position_ids", None)
    own = {n: t for n, t in model.state_dict().items() if "pooler" in n}
    model.load_state_dict(state | own)


@wrong("load_public", None)
def as_half_precision(model, public):
    state = {_own_name(n): t.half().float() for n, t in public.items() if "cls." not in n}
    state.pop("embeddings.position_ids", None)
    model.load_state_dict(state)
