"""The microservice: `ChatCompletionService` and `ModelService` over one OpenAI-compatible upstream.

server ─► interceptors ─► servicer ─► validation        is the request within the contract?
                                  ├─► admission         may the caller have it? what did it use?
                                  └─► upstream ─► sse   who answers it
"""
