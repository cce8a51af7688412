"""`python -m forktui` is `forktui`."""

import sys

from forktui.cli import main

if __name__ == "__main__":
    sys.exit(main())
