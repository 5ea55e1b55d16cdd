"""What can be added to the loop, each on its own: the paper's penalties and smoothness, and, beyond
the paper, more ways to weigh, draw, average and train.

| module | what is in it |
|---|---|
| `regularizers.py` | norms of the weights, and smoothness (SMART) |
| `weightings.py` | task weights from the gradients' Gram matrix, and all weightings by name |
| `loss_weightings.py` | task weights from the losses |
| `sampling.py` | which task comes when |
| `averaging.py` | averages of the parameters over training |
| `losses.py` | softer labels, and two dropout masks that agree (R-Drop) |
| `rates.py` | learning rates by layer, and optimizers by name |
| `masked_lm.py` | masked language modelling on the tasks' own sentences |
| `quantized.py` | a trained model in 8-bit integers |
"""
