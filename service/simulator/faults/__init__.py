"""Faults of an upstream, selected by the model name `sim-fault:<name>[=<value>][,<option>...]`.

    connections   connections that hang, drip or break
    whole_answers complete responses with another status or body than a completion
    streams       event streams that are wrong between their events
    framing       valid responses in unusual forms
    usages        valid responses with invalid token counts

Each file has a table, and `FAULTS` has all of them by name. Tests produce four failures without the
simulator, because it has accepted the connection: a closed port, a listening socket that does not
accept (or a packet filter), a name under `.invalid`, and a full connection pool. `ELSEWHERE` names
them.
"""

from service.simulator.faults import connections, framing, streams, usages, whole_answers
from service.simulator.faults.fault import Fault, FaultForm, Play

__all__ = ["ELSEWHERE", "FAULTS", "Fault", "FaultForm", "Play"]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for table in (connections, whole_answers, streams, framing, usages)
    for fault in table.FAULTS
}

ELSEWHERE = ("refuses", "black-holes", "name does not resolve", "pool exhausted")
"""Items of the failure catalogue that a server cannot produce after accepting a connection."""
