"""Code that both deployables share.

settings     environment -> frozen dataclass; reports every wrong variable by name
log          one JSON line per event, without exception texts
request_id   the caller's id if it is valid, otherwise a new one
lifetime     the signals that end a process, and its drain
interrupts   SIGINT during the start
metrics      the HTTP port for Prometheus
randomness   random bytes for ids
in_process   a gRPC channel to a server in the same process, without a socket
workers      several processes on the same ports, and their supervisor
"""
