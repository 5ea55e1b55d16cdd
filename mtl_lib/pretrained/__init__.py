"""Encoders as others save them: by name or folder, with their tokenizers.

Names and downloads are in `sources.py`, tokenizers in `wordpiece.py`; here the weights are read and
written. Only safetensors are read, never a pickle, which can run any code when it is loaded.
"""

import hashlib
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from mtl_lib.bert import BertModel
from mtl_lib.errors import EncoderError, explain
from mtl_lib.files import replacing
from mtl_lib.pretrained.config import read_config, write_config
from mtl_lib.pretrained.sources import ENCODERS, TINY, at_hand, fetch_encoder, folder_of, sha256
from mtl_lib.pretrained.wordpiece import (
    SPECIAL_TOKENS,
    load_tokenizer,
    read_json,
    wordpiece_tokenizer,
    write_tokenizer,
)

__all__ = [
    "ENCODERS", "SPECIAL_TOKENS", "TINY", "at_hand", "encoder_hash", "fetch_encoder",
    "load_encoder", "load_tokenizer", "read_public_state", "save_encoder", "wordpiece_tokenizer",
    "write_tokenizer",
]  # fmt: skip

INDEX = "model.safetensors.index.json"  # which shard holds which tensor
_PUBLIC_HEADS = ("cls.", "classifier.", "qa_outputs.")  # of transformers' task models


def load_encoder(name_or_path: str | Path) -> tuple[BertModel, Tokenizer]:
    """An encoder in eval mode and its tokenizer, which cuts a text at the encoder's positions.

    Args:
        name_or_path: a key of `ENCODERS`, downloaded and verified where need be; the folder of a
            public BERT (`config.json`, `model.safetensors` or its shards, `tokenizer.json` or
            `vocab.txt`), whose heads are left out; or a folder of `MultitaskModel.save`. The
            weights of "tiny", and a pooler that is missing, are drawn from torch's current seed.

    Raises:
        EncoderError: if a file is missing, damaged or does not fit the others.
    """
    folder = folder_of(name_or_path)
    path = folder / "config.json"
    config = read_config(path)
    try:
        model = BertModel(config)
    except (MemoryError, RuntimeError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        raise EncoderError(
            f"{path}: no encoder can be made of these sizes and rates ({reason}); correct them"
        ) from error
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(config.max_position_embeddings)
    entries = max(tokenizer.get_vocab().values()) + 1
    if entries > config.vocab_size:
        raise EncoderError(
            f"{folder}: the tokenizer has {entries} entries, config.json says "
            f"vocab_size {config.vocab_size}; take both from the same encoder"
        )
    if folder != TINY and not _load_weights(model, folder):
        warnings.warn(
            f"{folder}: no pooler among the weights, so the pooler is drawn anew: train it, or use "
            'the sentence vector "mean" or "cls"',
            stacklevel=2,
        )
    return model.eval(), tokenizer


def _load_weights(model: BertModel, folder: Path) -> bool:
    """Load the weights of a folder; whether there was a pooler among them."""
    state: dict[str, Tensor] = {}
    paths = _weights_of(folder)
    try:
        for path in paths:
            state |= load_file(path)
        pooler = any(".pooler." in f".{name}" for name in state)
        drawn = {f"pooler.{name}": tensor for name, tensor in model.pooler.state_dict().items()}
        read_public_state(model, state if pooler else state | drawn)
    except (SafetensorError, EncoderError, OSError, ValueError) as error:
        raise EncoderError(f"{path}: {explain(error)}") from error
    return pooler


def encoder_hash(name_or_path: str | Path) -> str:
    """SHA-256 of what makes the encoder: its weights; for a folder, its other files as well.

    Nothing is downloaded for a named encoder: its files are pinned, the hash of its weights stands
    for them. "tiny" draws its weights, so it is known by its two other files.

    Raises:
        EncoderError: if there is no such encoder or folder.
    """
    source = ENCODERS.get(str(name_or_path))
    if source and source.files:
        return source.files["model.safetensors"]
    folder = folder_of(name_or_path)
    if folder == TINY:
        parts = [(folder / name).read_bytes() for name in ("config.json", "tokenizer.json")]
        return hashlib.sha256(b"".join(parts)).hexdigest()
    weights = _weights_of(folder)
    if source:
        return sha256(weights[0])
    names = ["config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json"]
    if not (folder / "tokenizer.json").is_file():
        names += ["added_tokens.json"]  # is read beside vocab.txt only
    names += [path.name for path in weights]
    listing = [f"{name} {sha256(folder / name)}" for name in names if (folder / name).is_file()]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def _weights_of(folder: Path) -> list[Path]:
    """The file that holds the weights, or its shards."""
    path, index = folder / "model.safetensors", folder / INDEX
    if path.is_file():
        return [path]
    beside = {file.name for file in folder.glob("*.safetensors")}
    if index.is_file():
        places = read_json(index).get("weight_map")
        shards = set(map(str, places.values())) if isinstance(places, dict) else set()
        if not shards or shards - beside:
            lost = ", ".join(sorted(shards - beside)[:3]) or "its weight_map"
            raise EncoderError(f"{index}: {lost} is not here; copy all the encoder's files again")
        return [folder / name for name in sorted(shards)]
    pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".bin", ".pt", ".pth")]
    if pickles:
        raise EncoderError(
            f"{folder}: only {pickles[0]} is here, a pickle, which can run any code when it is "
            "loaded; `save_pretrained` of a current transformers writes model.safetensors"
        )
    lost = f"its shards' {INDEX}" if beside else "an encoder's weights"
    raise EncoderError(f"{path}: no such file; add {lost}")


def read_public_state(model: BertModel, state_dict: Mapping[str, Tensor]) -> None:
    """Load the tensors of a public BERT checkpoint into `model`, every one of them.

    Checkpoints come with and without a `bert.` prefix, and with `gamma` and `beta` for the weight
    and bias of a LayerNorm. Heads and the stored `position_ids` have no place in an encoder and
    are dropped. Of a `MultitaskModel` the encoder is taken.

    Raises:
        EncoderError: if a tensor is missing, left over, there twice, of another shape or holds
            other than finite floats. The model is then unchanged.
    """
    state: dict[str, Tensor] = {}
    if any(name.endswith(".weight.scale") for name in state_dict):
        whole = "mtl_lib.methods.quantized.load_quantized(FOLDER).encoder"
        raise EncoderError(f"stored in 8 bits: use `{whole}`")
    own_model = any(name.startswith("encoder.embeddings.") for name in state_dict)
    prefix, heads = ("encoder.", ("heads.",)) if own_model else ("bert.", _PUBLIC_HEADS)
    for public_name, tensor in state_dict.items():
        name = public_name.removeprefix(prefix)
        if name.startswith(heads) or name == "embeddings.position_ids":
            continue
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name in state:
            raise EncoderError(f"tensor {name} is there twice, the second time as {public_name}")
        state[name] = tensor
    own = model.state_dict()
    shapes = {n: (tuple(state[n].shape), tuple(own[n].shape)) for n in own if n in state}
    damaged = [f"not finite: {n}" for n in sorted(state) if not state[n].float().isfinite().all()]
    damaged += [f"whole numbers: {n}" for n in sorted(state) if not state[n].is_floating_point()]
    faults = [f"missing: {name}" for name in sorted(own.keys() - state.keys())]
    faults += [f"left over: {name}" for name in sorted(state.keys() - own.keys())]
    faults += [f"of another shape: {n} {a}, expected {b}" for n, (a, b) in shapes.items() if a != b]
    if faults or damaged:
        remedy = "take config.json and the weights from the same encoder"
        remedy = remedy if faults else "save the weights again, whole and in float32"
        found = "; ".join((faults + damaged)[:3])
        total = len(faults + damaged)
        raise EncoderError(f"not this encoder's weights (faults: {total}): {found}; {remedy}")
    model.load_state_dict(state)


def save_encoder(directory: str | Path, model: BertModel, tokenizer: Tokenizer) -> None:
    """Write a folder that `load_encoder` reads: config.json, tokenizer.json, model.safetensors."""
    folder = Path(directory)
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    config = replace(model.config, num_hidden_layers=len(model.encoder.layer))  # if some are cut
    weights = folder / "model.safetensors"
    with ExitStack() as files:  # the weights last: a folder with weights is whole
        save_file(state, files.enter_context(replacing(weights)), metadata={"format": "pt"})
        write_config(config, files.enter_context(replacing(folder / "config.json")))
        write_tokenizer(tokenizer, files.enter_context(replacing(folder / "tokenizer.json")))
        weights.unlink(missing_ok=True)  # of another model
