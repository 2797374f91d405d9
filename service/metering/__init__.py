"""The money rule: what a request can cost, and what its answer costs. Pure, without I/O.

price      tokens at a model's prices
bound      the most that a request can use: what is held
tokens     how many tokens a text or a sound is: at most, and about
said       what the model wrote in a message or a piece of one
progress   what an answer used, as it passes: what is charged
"""
