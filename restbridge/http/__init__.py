"""HTTP/1.1 for untrusted clients: the parts around the application.

protocol   a connection and its limits; the only file that uses uvicorn's private names
head       checks of a request's head that llhttp lacks
limits     limits on the size, duration and number of requests
edge       the outermost layer of each request: id, metrics, log line
exchange   a request and its response, and the events that end them early
"""
