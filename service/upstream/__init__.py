"""The upstreams: requests to them and answers from them, over HTTP.

client          one request and its answer, whole or streamed; the only HTTP client
rewriting       changes to requests and responses between caller and upstream
sse             server-sent events, parsed from bytes
refusals        from an upstream's refusal to a failure of the contract
account_faults  whether a refusal is about this service's own account
error_bodies    the shapes in which upstreams report errors
retries         when the service sends a request again
"""
