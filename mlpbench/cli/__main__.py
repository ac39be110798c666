"""``python -m mlpbench.cli``."""

import sys

from mlpbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
