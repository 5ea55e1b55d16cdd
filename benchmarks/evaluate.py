"""Evaluation of a development set, against padded batches in file order at the same batch size.

Pairs as long as those of Quora; encoders with random weights.
"""

import torch
from common import DEVICE, alternate, encoder_config, options, print_table, random_splits, store
from common import summary as summarise
from peers import PeerModel
from peers import predict as peer_predict

from mtl_lib.bert import BertModel
from mtl_lib.evaluation import predict
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.tasks import PARAPHRASE

PAIRS = 1000
BATCH = 32


def main() -> None:
    chosen = options(__doc__, rounds=5)
    split = random_splits(PAIRS, tasks=(PARAPHRASE,))["paraphrase"]
    encoder = BertModel(encoder_config("minilm-l6"))
    ours = MultitaskModel(encoder, {"paraphrase": HeadConfig()}).to(DEVICE)
    ours.fast = True
    peer = PeerModel("minilm-l6").to(DEVICE)
    missing, unexpected = peer.encoder.load_state_dict(encoder.state_dict(), strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    with torch.no_grad():
        linear = ours.heads["paraphrase"].linears[0]
        peer.heads["paraphrase"].weight.copy_(linear.weight)
        peer.heads["paraphrase"].bias.copy_(linear.bias)
    difference = (peer_predict(peer, split, BATCH).cpu() - torch.tensor(predict(ours, split))).abs()
    rows = summarise(
        alternate(
            {
                "transformers, padded, file order": lambda: peer_predict(peer, split, BATCH),
                "this library, packed, sorted": lambda: predict(ours, split, BATCH),
            },
            chosen.rounds,
        )
    )
    print_table(
        rows, f"{PAIRS} pairs, batch {BATCH}; logits differ by at most {difference.max():.1e}"
    )
    store("evaluate", {f"evaluation of {PAIRS} pairs, batch {BATCH}": rows})


if __name__ == "__main__":
    main()
