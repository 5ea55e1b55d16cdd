"""BERT's tokenizer, WordPiece: built from a vocabulary, read from a folder, written."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.normalizers import BertNormalizer

from mtl_lib.errors import EncoderError
from mtl_lib.files import replacing
from mtl_lib.pretrained.config import read_config

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Settings of tokenizer_config.json as BertNormalizer calls them.
_OPTIONS = {
    "do_lower_case": "lowercase", "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}")
    except (ValueError, RecursionError) as error:
        raise EncoderError(f"{path}: not a JSON object ({error}); correct it") from error
    return values


def write_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    with replacing(path) as unfinished:
        tokenizer.save(str(unfinished))


def wordpiece_tokenizer(vocabulary: Iterable[str], **options: bool) -> Tokenizer:
    """BERT's tokenizer over a vocabulary in the order of its ids.

    Text is cleaned, lower-cased and stripped of accents, cut at white space, punctuation and
    around each CJK character, unless `options` (of BertNormalizer) say otherwise; each word is
    then cut greedily into the longest entries, which carry `##` inside a word (Devlin et al.,
    2019, section 3; Wu et al., 2016).

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
    tokenizer.normalizer = BertNormalizer(**options)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _add_special_tokens(tokenizer)


def _add_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """Put [CLS] before a text and [SEP] behind it, where nothing puts a special token yet."""
    if not tokenizer.num_special_tokens_to_add(False):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
        )
    return tokenizer


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in a folder of an encoder or of `MultitaskModel.save`; it does not pad.

    It cuts where its tokenizer.json says, at the latest at the encoder's last position.

    Raises:
        EncoderError: if a file is missing, damaged, or asks for what is not BERT's tokenizer.
    """
    folder = Path(folder)
    positions = read_config(folder / "config.json").max_position_embeddings
    path = folder / "tokenizer.json"
    if not path.is_file() and not (path := folder / "vocab.txt").is_file():
        raise EncoderError(f"{folder}: neither tokenizer.json nor vocab.txt is here; add one")
    settings = read_json(folder / "tokenizer_config.json")
    for key in _OPTIONS:
        if not isinstance(settings.get(key), bool | None):
            raise EncoderError(f"{folder}/tokenizer_config.json: {key} must be true or false")
    options = {new: settings[old] for old, new in _OPTIONS.items() if settings.get(old) is not None}
    try:
        if path.suffix == ".txt":
            tokenizer = _from_vocabulary(path, settings, options)
        else:
            tokenizer = Tokenizer.from_file(str(path))
            for option, value in options.items():
                if getattr(tokenizer.normalizer, option, value) != value:
                    raise EncoderError(
                        f"tokenizer_config.json has {value} for {option}; correct or remove it"
                    )
    except Exception as error:  # the tokenizers package raises nothing narrower
        words = "" if isinstance(error, EncoderError) else "not a tokenizer: "
        raise EncoderError(f"{path}: {words}{error}") from error
    ids = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS[:4]]
    if None in ids or ids[0] != 0:
        raise EncoderError(f"{path}: not BERT's: needs [PAD] at 0, [UNK], [CLS] and [SEP]")
    tokenizer.no_padding()
    if not tokenizer.truncation or tokenizer.truncation["max_length"] > positions:
        tokenizer.enable_truncation(positions)
    return _add_special_tokens(tokenizer)


def _from_vocabulary(path: Path, settings: dict[str, Any], options: dict[str, bool]) -> Tokenizer:
    """From vocab.txt and what transformers reads beside it; what is not followed is refused."""
    tokens = settings.get("added_tokens_decoder", {})
    added = {int(number): AddedToken(**token) for number, token in tokens.items()}
    if not added:
        settings = settings | read_json(path.with_name("special_tokens_map.json"))
        words = read_json(path.with_name("added_tokens.json"))
        added = {number: AddedToken(word) for word, number in words.items()}
    special = {*SPECIAL_TOKENS, *(token.content for token in added.values() if token.special)}
    fine: dict[str, Any] = {f"{token[1:-1].lower()}_token": (token,) for token in SPECIAL_TOKENS}
    fine |= {"additional_special_tokens": special, "extra_special_tokens": special}
    fine |= {"do_basic_tokenize": (True,), "never_split": ()}
    fine |= {"tokenizer_class": ("BertTokenizer", "BertTokenizerFast")}
    for key in fine:
        values = settings.get(key)
        values = values if isinstance(values, list) else [values]
        for value in (v["content"] if isinstance(v, dict) else v for v in values if v != {}):
            if value is not None and value not in fine[key]:
                raise EncoderError(
                    f"{key} {value!r} is not followed; name the special tokens "
                    f"{', '.join(SPECIAL_TOKENS)}, and write tokenizer.json by "
                    "BertTokenizer.from_pretrained(...).save_pretrained(...)"
                )
    # Not splitlines(): entries hold characters that Unicode counts as line ends.
    lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    capitals = [line for line in lines if line != line.lower() and line[0] != "["]
    if "lowercase" not in options and capitals:  # an uncased vocabulary has none
        raise EncoderError(
            f"{len(capitals)} entries have capitals, as {capitals[0]!r} has: if texts keep theirs, "
            'write {"do_lower_case": false} into tokenizer_config.json beside it, else true'
        )
    tokenizer = wordpiece_tokenizer(lines, **options)
    for number, token in sorted(added.items()):
        tokenizer.add_tokens([token])
        if (here := tokenizer.token_to_id(token.content)) != number:
            raise EncoderError(
                f"{token.content!r}, added beside it, has id {number}, but would have {here} after "
                "these entries; take both from the same encoder"
            )
    return tokenizer
