"""The REST bridge: OpenAI's HTTP contract in front of the gRPC one.

    stranger ── HTTP/1.1 ──► protocol ► edge ► app ► chat_completions, models ── gRPC ──► service
                             limits of   id,    routes   decode, call, encode
                             the wire    log

It transcodes and decides nothing: keys, models, validation and limits of use are the service's. It
owns no secret and no state.

protocol, limits    what a stranger may send: head, body, time, number
edge, exchange      what every request meets first and last: id, log line, metrics, early endings
errors, headers     what crosses from gRPC to HTTP and back, as tables
event_stream        server-sent events with keep-alive
channel, server     the way to the service; start and drain
"""
