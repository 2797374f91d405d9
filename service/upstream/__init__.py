"""The upstreams: requests to them and answers from them, over HTTP.

client          one request and its answer, whole or streamed; the only HTTP client
rewriting       what changes in a request and in an answer on the way
sse             server-sent events, parsed from bytes
refusals        from an upstream's refusal to a failure of the contract
account_faults  whether a refusal is about this service's own account
error_bodies    the shapes in which upstreams report errors
retries         when a request is sent again
"""
