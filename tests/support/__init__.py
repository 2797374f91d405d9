"""Code that the tests of several folders share.

certificates.py     certificates for TLS, as files
canaries.py         secrets that appear nowhere, and the search for them
shown_secrets.py    fails tests in which one appears, a plugin of pytest
waiting.py          until a condition holds or an event is set
grpc_client.py      a caller over gRPC: unary calls, streams, and their failures
running_service.py  a service and its upstream in this process
running_bridge.py   a bridge in this process
pseudo_terminal.py  a program on a terminal of its own
processes.py        a deployable in a process of its own
installations.py    the built wheel in bare environments
containerfile.py    an image, built and run without a container engine
kustomize.py        Kubernetes objects, as kustomize renders them
spans.py            spans in memory, with everything that was set on them
otlp.py             a real OTLP receiver of spans and metrics
prometheus.py       a real Prometheus that reads metrics
stack.py            bridge, service and upstream, for the SDKs
webhook_receiver.py  a receiver of events that fails as a test wants
accounts_stack.py   bridge, service and upstream, with accounts
accounts_admin.py   the listeners of operators and of callers, on one store
asking.py           a call over gRPC or REST, with the same form of answer
cutter.py           a proxy that cuts connections within responses
idempotent_asking.py  a call with an idempotency key over gRPC or REST
odd_answers.py      odd responses of an upstream as bytes, and what each door makes of them
books.py            balances, holds and charges, read from the store
in_place.py         the store on the event loop
priced_models.py    models with prices, and what their tokens cost
failing.py          the failures that an SDK can meet before the first chunk
fake_service.py     a gRPC server whose answers are functions of a test
bridge_pair.py      a bridge in front of a fake service, and a client of it
raw_http1.py        HTTP/1.1 that no client library sends
raw_http2.py        gRPC over HTTP/2 frames that no client library sends
chromium.py         a real Chromium without a window
envoy.py            a real Envoy between callers and services
postgres.py         a real PostgreSQL server
pgbouncer.py        a real PgBouncer in front of it
outages.py          stores that go away for a while, in several ways
footprint.py        the tasks and descriptors of this process, before and after
golden.py           golden pairs: a document and its message
golden_requests.py  golden requests
golden_responses.py golden completions, chunks and errors
json_equality.py    whether two JSON documents are equal
samples.py          values of the service, for tests without sockets
fault_catalogue.py  the failure catalogue, and the tests of each fault
examples.py         the number of examples of a property test
example_projects.py  the projects in examples/, built in a copy
side_by_side.py     the order of tests in several processes, a plugin of pytest
speed.py            preparations shared by all tests, a plugin of pytest
time_limit.py       the time limit of each test, a plugin of pytest
tree.py             fails tests that leave files in the working tree, a plugin of pytest
"""
