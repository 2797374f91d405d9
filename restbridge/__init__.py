"""The REST bridge: OpenAI's HTTP contract in front of the gRPC one.

    stranger ── HTTP/1.1 ──► protocol ► edge ► app ► chat_completions, models ── gRPC ──► service
                             limits of   id,    routes   decode, call, encode
                             the wire    log

It transcodes and decides nothing: keys, models, validation and limits of use are the service's. It
owns no secret and no state.

protocol, head, limits     what a stranger may send: head, body, time, number
edge, exchange, telemetry  what every request meets first and last: id, early ending, log, metrics
errors, headers            what crosses from gRPC to HTTP and back, as tables
failures                   every exception becomes the one answer that is still possible
answers, event_stream      the two kinds of answer: one JSON document, or events with keep-alive
chat_completions, models   the resources of the API; probes: those of whoever runs the bridge
app, channel, server       the routes, the way to the service, start and drain
"""
