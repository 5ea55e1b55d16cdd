"""The finished model that comes with the handbook, answering within two seconds, without torch.

    from mtl_lib.shipped import load
    model = load()
    model.sentiment(["A warm, funny film."])
    model.compare([("How do I learn to swim?", "What is the best way to learn swimming?")])

`numpy_bert.py` is the model, `answers.py` what it is asked: texts, pairs, files of pairs.
"""

from mtl_lib.shipped.answers import SENTIMENTS, Shipped, load, read_pairs

__all__ = ["SENTIMENTS", "Shipped", "load", "read_pairs"]
