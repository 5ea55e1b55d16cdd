"""Write data/models/tiny from the training sentences of the embedded corpora.

Run it again whenever `data/handbook/` changes: `python scripts/build_tiny_encoder.py`.
"""

from mtl_lib.data import load_corpus, training_sentences
from mtl_lib.pretrained import TINY, build_tiny, load_encoder


def main() -> None:
    build_tiny(training_sentences(load_corpus("handbook")))
    model, tokenizer = load_encoder("tiny")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{TINY}: {tokenizer.get_vocab_size()} entries, {parameters:,} parameters")


if __name__ == "__main__":
    main()
