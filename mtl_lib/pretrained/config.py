"""The `config.json` of an encoder: read as others save it, written as they read it."""

import json
from dataclasses import asdict, fields
from pathlib import Path

from mtl_lib.bert import ONLY, SIZES, BertConfig
from mtl_lib.errors import EncoderError
from mtl_lib.files import write_text

# What a public config.json says of the architecture; without a word it is this file's.
_BUILT = {
    "model_type": "bert", "position_embedding_type": "absolute",
    "is_decoder": False, "add_cross_attention": False,
}  # fmt: skip


def read_config(path: str | Path) -> BertConfig:
    """Read a public `config.json`; keys that do not shape the encoder are ignored.

    Raises:
        EncoderError: if the file is missing, is not a JSON object, asks for something that is not
            built here, or lacks one of the sizes (which would silently become bert-base's).
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        for name, built in _BUILT.items():
            if values.get(name, built) not in (built, None):
                raise EncoderError(f"{name} is {values[name]!r}; only {built!r} {ONLY}")
        if missing := [name for name in SIZES if name not in values]:
            raise EncoderError(f"{', '.join(missing)} missing")
        known = {field.name for field in fields(BertConfig)}
        return BertConfig(**{name: value for name, value in values.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, EncoderError) as e:
        raise EncoderError(f"{path}: not the config.json of a BERT encoder: {e}") from e


def write_config(config: BertConfig, path: str | Path) -> None:
    """Write the `config.json` that `read_config` reads back."""
    write_text(path, json.dumps(asdict(config), indent=2) + "\n")
