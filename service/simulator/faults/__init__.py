"""The failures of an upstream, chosen by the model name `sim-fault:<name>[=<value>][,<option>...]`.

    connections   nothing, too little or too slowly is written; the connection breaks
    whole_answers a whole answer of another status or with another body than a completion
    streams       an event stream that goes wrong between its events
    framing       a sound answer, or its line ends and pieces, written as few servers do
    usages        a sound answer with senseless token counts

Each file has a table, and `FAULTS` has them all by name. Four failures of an upstream need no
server that accepts connections and are made elsewhere: a closed port refuses, a listening socket
that nobody accepts from (or a packet filter) swallows, a name under `.invalid` does not resolve,
and a client whose pool is full exhausts it. They are named in `ELSEWHERE`.
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
"""Items of the failure catalogue that a server which accepted the connection cannot produce."""
