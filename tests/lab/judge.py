"""What each task on the nodes runs in its environment: judge it at its start and at its end, and say so.

    python -s judge.py '{"directory": ..., "want": "a", ...}'      (an `Order` of verify.py, which lies beside this)

Prints one line of JSON: who looked, when, at which versions, and what came of it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import sys
import time
from collections import Counter

rank = os.environ.get("SLURM_PROCID", "0")
order = json.loads(sys.argv[1])
# Others look at other files.
order["seed"] = hash((os.environ.get("SLURM_JOB_ID", ""), rank)) & 0xFFFFFFFF
sys.argv[1] = json.dumps(order)

import verify  # noqa: E402 - it reads the command line

began = time.time()
status = verify.main()
print(
    json.dumps(
        {
            "host": socket.gethostname(),
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "rank": rank,
            "want": order["want"],
            "prefix": sys.prefix,
            "began": began,
            "ended": time.time(),
            "status": status,
            "versions": dict(Counter(each.version for each in importlib.metadata.distributions())),
        }
    ),
    flush=True,
)
sys.exit(status)
