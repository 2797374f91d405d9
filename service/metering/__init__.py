"""The maximum cost of a request, and the cost of its response. Pure, without I/O.

price        tokens at a model's prices
usage_parts  the parts of a reported usage with prices of their own
bound        the maximum usage of a request, which is held
tokens       the tokens of a text or a sound: maximum and estimate
output_size  how much the model wrote in a message or chunk
progress     counts the usage of a response as it arrives, which is charged
"""
