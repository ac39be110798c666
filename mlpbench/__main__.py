"""``python -m mlpbench``: the same as the command ``mlpbench``."""

import sys

from mlpbench.cli import main

if __name__ == "__main__":
    sys.argv[0] = "mlpbench"
    sys.exit(main())
