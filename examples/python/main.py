"""Runs the examples that the command line names, or all: python main.py unary stream."""

import sys

import grpc
from calls import cancel, deadline, stream, unary
from connect import connect
from failures import describe, errors

from chatcompletion.v1.chat_completion_service_pb2_grpc import ChatCompletionServiceStub
from tools import tools

EXAMPLES = {one.__name__: one for one in (unary, stream, deadline, cancel, tools, errors)}

with connect() as channel:
    for name in sys.argv[1:] or EXAMPLES:
        print("==", name, flush=True)
        try:
            EXAMPLES[name](ChatCompletionServiceStub(channel))
        except grpc.RpcError as error:
            sys.exit(describe(error))
