"""One file a class of kernels. Each defines the computation in TE, its knobs and the schedule those knobs give."""
