"""`python -m mtl_lib` is the `mtl` command."""

import sys

from mtl_lib.cli import main

if __name__ == "__main__":  # a worker process imports this module under another name
    sys.exit(main())
