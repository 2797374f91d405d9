"""Tests of the contract, the service and the bridge.

gRPC's core must not prepare for forks, before anything here imports it. Under uvloop, a test that
starts a program forks its own process. In the child, gRPC would start its threads again, until the
program replaces the child a moment later. About one child in 70 ended with a segmentation fault in
such a thread.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
