"""Mutations of the product that the tests must notice: does a test fail if this line is wrong?

    *.toml       the list: file, exact text, what replaces it, the tests that must fail
    mutations    the list, read and checked
    tree         a copy of the working tree, in which one mutation at a time is made
    __main__     `make mutants`: each mutation in turn, and what lives

A mutation that lives, or whose text no longer stands once in its file, fails the command. Whoever
changes a mutated line moves the mutation with it.
"""
