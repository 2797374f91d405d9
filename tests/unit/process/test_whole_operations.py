import asyncio
import gc
import weakref

import pytest
import pytest_asyncio

from process.whole_operations import to_its_end


class FailedError(Exception):
    pass


class Operation:
    """One of gRPC's: it awaits what the core does, then frees what it holds."""

    def __init__(self, *cores: "asyncio.Future[str]") -> None:
        self.cores = cores
        self.freed = 0

    async def run(self) -> str:
        found = "nothing"
        for core in self.cores:
            found = await core
            self.freed += 1
        return found


@pytest_asyncio.fixture
async def core() -> "asyncio.Future[str]":
    return asyncio.get_running_loop().create_future()


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_result_is_that_of_the_operation(core: "asyncio.Future[str]") -> None:
    assert await to_its_end(Operation().run()) == "nothing"
    waits = Operation(core)
    result = to_its_end(waits.run())
    await settle()
    assert (result.done(), waits.freed) == (False, 0)
    core.set_result("sent")
    assert (await result, waits.freed) == ("sent", 1)


async def test_an_operation_can_yield() -> None:
    async def yields() -> str:
        await asyncio.sleep(0)
        return "late"

    assert await to_its_end(yields()) == "late"


async def test_an_operation_that_nobody_awaits_any_more_frees_what_it_holds(
    core: "asyncio.Future[str]",
) -> None:
    waits = Operation(core)

    async def caller() -> None:
        await to_its_end(waits.run())

    task = asyncio.create_task(caller())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not core.cancelled()
    core.set_result("sent")
    await settle()
    assert waits.freed == 1


@pytest.mark.parametrize("is_awaited", [True, False])
async def test_an_operation_that_fails_frees_what_it_holds(
    core: "asyncio.Future[str]", is_awaited: bool
) -> None:
    waits = Operation(core)
    result = to_its_end(waits.run())
    await settle()
    if not is_awaited:
        result.cancel()
    core.set_exception(FailedError("the connection is lost"))
    await settle()
    assert waits.freed == 1
    if is_awaited:
        with pytest.raises(FailedError, match="the connection is lost"):
            await result


async def test_what_a_failed_operation_raises_afterwards_hides_no_failure(
    core: "asyncio.Future[str]",
) -> None:
    async def aborts() -> None:
        await core
        raise LookupError("aborted")

    result = to_its_end(aborts())
    core.set_exception(FailedError())
    with pytest.raises(FailedError):
        await result


async def test_an_operation_goes_on_after_what_failed_without_it(
    core: "asyncio.Future[str]",
) -> None:
    second: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waits = Operation(core, second)
    result = to_its_end(waits.run())
    core.set_exception(FailedError())
    await settle()
    second.set_result("end")
    assert (await result, waits.freed) == ("end", 2)


async def test_a_read_that_fails_ends_as_it_does_without_a_failure(
    core: "asyncio.Future[str]",
) -> None:
    read, refused = Operation(core), LookupError("the status of the call")

    async def reads() -> None:
        await read.run()
        raise refused

    ended, raised = to_its_end(read.run(), is_read=True), to_its_end(reads(), is_read=True)
    core.set_exception(FailedError())
    assert await ended is None
    with pytest.raises(LookupError) as caught:
        await raised
    assert (caught.value, read.freed) == (refused, 2)


async def test_an_operation_that_is_cancelled_itself(core: "asyncio.Future[str]") -> None:
    result = to_its_end(Operation(core).run())
    core.cancel()
    with pytest.raises(asyncio.CancelledError):
        await result


async def test_an_exception_has_its_place_and_is_freed_without_a_garbage_collection() -> None:
    async def breaks() -> None:
        raise FailedError

    gc.disable()
    try:
        result = to_its_end(breaks())
        with pytest.raises(FailedError) as caught:
            await result
        assert [each.name for each in caught.traceback][-1] == "breaks"
        left = weakref.ref(result)
        del result, caught
        assert left() is None
    finally:
        gc.enable()
