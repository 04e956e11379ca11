"""`python -m ccroute`, the same as the command `ccroute`."""

import sys

from ccroute.cli import main

if __name__ == "__main__":
    sys.exit(main())
