"""Client libraries of others, unmodified, through bridge and service.

    this process   stack, judgement         a program of a language's folder: a user of a library
                   -> BASE_URL, API_KEY ->
                   <- a JSON line for each scenario, with "scenario" and what came of it <-

    scenarios.py   the scenarios, which are the same for every library, and what is right for each
    programs.py    the programs
    servers.py     servers of others, which are upstreams

A program uses the name of the scenario as the model, prints its line, and goes on after a failure:

    text, pieces    what the library delivered, and in how many pieces
    tokens          the completion tokens of the usage, if the library shows them
    call            the tool that was called: {"name", "arguments"}
    object          the structured output
    error           {"class", "message"} of the exception

Libraries that put the pieces of a tool call together also stream it: it must be the same call.
"""
