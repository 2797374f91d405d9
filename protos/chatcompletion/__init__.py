"""The contract, which clients and servers import.

v1/           the .proto files and their generated stubs
openai_json/  the OpenAI JSON form of the same messages
reasons       the error table, read from v1/error.proto
default_messages  the default text of each reason
"""
