"""Python imports this at its start when this directory is in PYTHONPATH: faults for one process, by name."""

import os
import sys

if os.environ.get("FAULTS_IN") == sys.orig_argv[-1]:
    import inside

    inside.arm()
