"""What the deployables have in common as processes.

settings     environment → frozen dataclass, every wrong value refused by its name
log          one JSON line per event, without exception texts
request_id   a caller's id where it is sane, a new one otherwise
lifetime     the signals that end a process, and its drain
metrics      the port that Prometheus reads
"""
