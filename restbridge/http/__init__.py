"""HTTP/1.1 against strangers: what a request meets before and after the application.

protocol   a connection, bounded; the only file that knows uvicorn's inside
head       what llhttp lets pass in a request's head, and must not pass
limits     what a stranger can send, and how many at a time
edge       what every request meets first and last: id, early ending, metrics, log line
exchange   a request and its answer, and what ends them early
"""
