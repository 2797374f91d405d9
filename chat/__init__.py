"""A terminal client of the API, over REST or gRPC.

__main__ -> questions -> answering -> a door: rest_door or grpc_door
                                   -> events, usage_line, ask_error: pure

It imports neither the service nor the bridge, and needs only the extra `chat`.
"""
