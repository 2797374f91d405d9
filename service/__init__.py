"""The microservice: chat completions, prepaid, over OpenAI-compatible upstreams.

server ─► interceptors ─► servicer ─► validation             is the request within the contract?
                                  ├─► admission ─► accounts  may the caller have it? what it used
                                  └─► upstream ─► sse        who answers it
"""
