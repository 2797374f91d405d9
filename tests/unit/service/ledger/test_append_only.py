import pytest

from service.ledger import append_only


@pytest.mark.parametrize(
    ("dialect", "events"),
    [("sqlite", ("UPDATE", "DELETE")), ("postgresql", ("UPDATE", "DELETE", "TRUNCATE"))],
)
def test_there_is_a_trigger_for_each_change(dialect: str, events: tuple[str, ...]) -> None:
    made = append_only.statements("t", dialect)
    triggers = [statement for statement in made if statement.startswith("CREATE TRIGGER")]

    assert len(triggers) == len(events)
    for event, trigger in zip(events, triggers, strict=True):
        assert f"BEFORE {event} ON t" in trigger
