"""The data plane: a client socket, lanes, and bundles that run. Started as a program (`python -m veltair.engine`)."""

import os

# TVM sizes a thread's pool once, by half the processors it sees; leases of every width need all of them.
os.environ.setdefault("TVM_NUM_THREADS", str(len(os.sched_getaffinity(0))))
