"""Store what a bag of words reaches on a corpus: python scripts/measure_floors.py [FOLDER ..]

Writes data/results/floors/CORPUS.json; without a folder, for the embedded corpora. Of a folder's,
also what the study's small encoder reaches untouched.
"""

import sys

from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.floors import write_floors

if __name__ == "__main__":
    for directory in sys.argv[1:] or ["handbook"]:
        encoder = "" if directory == "handbook" else "minilm-l6"
        print(write_floors(load_corpus(directory), encoder=encoder))
