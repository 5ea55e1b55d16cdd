"""One run in several processes, on one or more machines.

`data_parallel.py` shares the examples of each step among them; `launch.py` finds those that
`torchrun` has started.
"""
