"""An HTTP/1.1 client on asyncio's transports, behind httpx's transport interface.

http11        the transport: httpx's request in, httpx's response out
pool          which connection carries a request; how many there can be
connection    one connection, and one request and its response at a time
parser        a response, parsed from bytes
request_head  a request line and its headers, checked and written as bytes
dialing       a connection made: name, addresses, TCP, TLS

It follows no redirect, keeps no cookie, decompresses nothing, knows no proxy and reads no
environment.
"""
