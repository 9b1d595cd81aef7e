"""The command line of this project: `python oppman.py help` lists what it can do."""

import sys

from app.management import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
