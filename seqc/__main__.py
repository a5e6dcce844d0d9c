"""`python -m seqc` is the command `seqc`."""

import sys

from seqc.cli.main import main

sys.exit(main())
