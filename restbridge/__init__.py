"""The REST bridge: OpenAI's HTTP API in front of the gRPC contract.

    client -> HTTP/1.1 -> http -> app -> chat_completions, model_routes -> gRPC -> service
                          limits, routes   decode, call, encode
                          id, log

The bridge transcodes and makes no decisions: the service checks keys, models, requests and limits
of use. The bridge has no secrets and no state.

http/                      HTTP/1.1 for untrusted clients: limits on heads, bodies, time, number
error_responses, headers   errors and headers from gRPC to HTTP and back, as tables
error_middleware           turns each exception into the best response that is still possible
answers, event_stream      the two kinds of response: a JSON document, or events with keep-alive
chat_completions,
model_routes               the resources of the API; forward: their unary calls
credits, probes            the credits extension; the health endpoints
pages                      the playground, the reference, the OpenAPI document
telemetry                  the names of metrics and log fields
app, channel, server       the routes, the gRPC channels, start and drain
"""
