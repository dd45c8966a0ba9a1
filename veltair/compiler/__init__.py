"""The offline stage: a model file in, a bundle of measured and gated variants out. Start at `build.compile_model`."""

import os

# TVM sizes a thread's pool once, by half the processors it sees; leases of every width need all of them.
os.environ.setdefault("TVM_NUM_THREADS", str(len(os.sched_getaffinity(0))))
