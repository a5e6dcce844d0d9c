"""`python -m seqc` is the command `seqc`."""

import sys

from seqc.cli import main

sys.exit(main())
