"""Store what a bag of words reaches on a corpus: python scripts/measure_floors.py [FOLDER ..]

Writes data/results/floors/CORPUS.json; without a folder, for the embedded corpora.
"""

import sys

from mtl_lib.bag_of_words import write_floors
from mtl_lib.data import load_corpus

if __name__ == "__main__":
    for directory in sys.argv[1:] or ["handbook"]:
        print(write_floors(load_corpus(directory)))
