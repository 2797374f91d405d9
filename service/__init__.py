"""The gRPC service: prepaid chat completions on OpenAI-compatible upstreams.

server -> interceptors -> servicer -> validation            checks the request
                                   -> admission -> ledger   holds credit and settles
                                   -> upstream -> sse       requests the completion
"""
