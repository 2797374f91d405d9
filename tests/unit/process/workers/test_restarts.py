from process.workers.restarts import Restarts


def test_each_restart_waits_twice_as_long_up_to_ten_seconds() -> None:
    restarts = Restarts()

    delays = [restarts.after(0.5) for _ in range(9)]

    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_healthy_minute_forgets_what_was_before() -> None:
    restarts = Restarts()

    delays = [restarts.after(lived) for lived in (1, 59.9, 60.0, 1, 1000.0)]

    assert delays == [0.1, 0.2, 0.1, 0.2, 0.1]
