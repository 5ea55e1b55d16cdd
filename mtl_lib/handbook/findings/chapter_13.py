"""What chapter 13 found: fair rules, what they show on toys, and what our bench can say."""

from mtl_lib.handbook.findings import Finding
from mtl_lib.paths import RESULTS


def _stored() -> bool:
    return any((RESULTS / "bench").glob("*.json"))


FINDINGS = (
    Finding(
        "**Where losses are bowls, every method ends where some fixed weights end.** On our page "
        "of two bowls, MGDA, surgery and CAGrad all arrive at points that fixed weights reach as "
        "well. Where the front bends outwards, fixed weights fall into a corner and MGDA need not."
    ),
    Finding(
        "**Equal methods show a lead under unequal rules.** Give eight equal methods five rates "
        "each and the baseline one, report the best, and the table has a winner. With one grid for "
        "all, and other runs to report than to choose, the lead is gone."
    ),
    Finding(
        "**What the paper said.** It compares surgery with the plain sum, at one rate, one seed "
        "and weights of one. Fixed weights, a grid of rates and seeds that report are what would "
        "turn that into evidence."
    ),
    Finding(
        "**Our bench of BERT is not finished.** Its runs are not among those stored, so whether a "
        "weighting beats the best fixed weights on our corpora, we do not know yet.",
        holds=lambda values: not _stored(),
    ),
)
