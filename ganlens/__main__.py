"""The command line as a module: ``python -m ganlens``."""

import sys

from ganlens.cli import main

if __name__ == "__main__":
    sys.exit(main())
