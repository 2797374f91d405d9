"""The REST bridge: OpenAI's HTTP contract in front of the gRPC one.

    stranger ── HTTP/1.1 ──► http ► app ► chat_completions, model_routes ── gRPC ──► service
                             limits,  routes   decode, call, encode
                             id, log

It transcodes and decides nothing: keys, models, validation and limits of use are the service's. It
owns no secret and no state.

http/                      HTTP/1.1 against strangers: head, body, time, number, early ending
error_responses, headers   what crosses from gRPC to HTTP and back, as tables
failures                   every exception becomes the one answer that is still possible
answers, event_stream      the two kinds of answer: one JSON document, or events with keep-alive
chat_completions,
model_routes               the resources of the API; forward: their unary calls
credits, probes            an extension; what whoever runs the bridge asks
telemetry                  the names of metrics and log fields
app, channel, server       the routes, the way to the service, start and drain
"""
