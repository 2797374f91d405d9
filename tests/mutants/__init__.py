"""Mutation tests: for each mutation of the product, a test must fail.

    *.toml       the mutations: file, exact text, replacement, the tests that must fail
    mutations    reads and checks the list
    tree         a copy of the working tree, in which one mutation at a time is made
    __main__     `make mutants`: runs the tests of each mutation

The command fails if the tests pass with a mutation, or if its text is not in its file exactly once.
If you change a mutated line, update the mutation.
"""
