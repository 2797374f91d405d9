"""Several processes that serve the same ports, and the one that starts them.

    supervisor -> worker 1, worker 2, worker 3 -> the same ports, by SO_REUSEPORT
    supervisor <-> each worker, over a socket -> signals, metrics

The supervisor imports neither grpc nor an event loop of C, so that it is small. Workers are new
processes that run the same command, never forks.
"""
