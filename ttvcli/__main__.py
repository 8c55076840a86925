"""`python -m ttvcli` is `ttv`."""

import sys

from ttvcli.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
