import os
from concurrent.futures import ThreadPoolExecutor

from process.randomness import sixteen


def test_no_bytes_come_twice() -> None:
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda _: sixteen(), range(5000)))

    assert len(set(taken)) == 5000
    assert {len(each) for each in taken} == {16}


def test_a_forked_process_has_its_own() -> None:
    sixteen()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, sixteen())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 16) != sixteen()
