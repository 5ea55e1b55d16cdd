"""What goes beyond the paper: more ways to weigh, draw, average and train, each on its own.

| module | what is in it |
|---|---|
| `weightings.py` | task weights from the gradients' Gram matrix, and all weightings by name |
| `loss_weightings.py` | task weights from the losses |
| `sampling.py` | which task comes when |
| `averaging.py` | averages of the parameters over training |
| `losses.py` | further losses |
| `rates.py` | learning rates: by layer and over time |
| `masked_lm.py` | masked language modelling on the tasks' own sentences |
| `quantized.py` | a trained model in 8-bit integers |
"""
