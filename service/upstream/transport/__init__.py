"""An HTTP/1.1 client on asyncio's transports, behind httpx's transport interface.

http11        the transport: from httpx's request to httpx's response
pool          the connections: their choice and their maximum number
connection    a connection, with one request and response at a time
parser        a response, parsed from bytes
request_head  a request line and its headers, checked and written as bytes
dialing       opens connections: names, addresses, TCP, TLS

It follows no redirects, keeps no cookies, decompresses nothing, supports no proxies and reads no
environment.
"""
