"""`python -m deploy.cli <command> ...`."""

import sys

from deploy.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
