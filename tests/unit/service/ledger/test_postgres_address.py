"""Addresses of databases, in SQLAlchemy's form and in libpq's."""

import pytest
import sqlalchemy as sa

from service.ledger.postgres_address import parse
from service.ledger.store import Store


@pytest.mark.parametrize(
    ("address", "host", "port", "name"),
    [
        ("postgresql://a,b/db", "a,b", ",", "postgresql://a,b/db"),
        ("postgresql://u@a:1,b:2/db", "a,b", "1,2", "postgresql://u@a:1,b:2/db"),
        ("postgres://a:1,b/db?target_session_attrs=any", "a,b", "1,", "postgres://a:1,b/db"),
        ("postgresql://u:s%40x@[::1]:5,b/db", "::1,b", "5,", "postgresql://u:***@[::1]:5,b/db"),
        ("postgresql+psycopg://a,b:2,c", "a,b,c", ",2,", "postgresql+psycopg://a,b:2,c/"),
    ],
)
def test_several_hosts(address: str, host: str, port: str, name: str) -> None:
    url, shown = parse(address)
    assert (url.host, url.query["host"], url.query["port"], shown) == (None, host, port, name)
    arguments = sa.create_engine(url.set(drivername="postgresql+psycopg"))
    _, given = arguments.dialect.create_connect_args(arguments.url)
    assert (given["host"], given["port"]) == (host, port)


def test_the_password_and_the_options_of_several_hosts_are_kept() -> None:
    url, shown = parse("postgresql://u:p%2Fw@a,b/db?sslmode=require&password=x")
    assert (url.username, url.password, url.database) == ("u", "p/w", "db")
    assert (url.query["sslmode"], shown) == ("require", "postgresql://u:***@a,b/db")


def test_one_host_is_as_sqlalchemy_reads_it() -> None:
    url, shown = parse("postgresql://u:p@h:5/db?password=x")
    assert (url.host, url.port, shown) == ("h", 5, "postgresql://u:***@h:5/db")


@pytest.mark.parametrize(
    "address",
    ["postgresql://a:x,b:2/db", "postgresql://a,[b/db", "postgresql://a,b/db?host=c", "nothing,"],
)
def test_what_is_not_an_address(address: str) -> None:
    with pytest.raises((ValueError, sa.exc.ArgumentError)):
        parse(address)


@pytest.mark.parametrize("address", ["postgresql://a:x,b:2/db", "postgresql://a,b/db?port=1"])
def test_the_store_names_no_part_of_it(address: str) -> None:
    with pytest.raises(ValueError, match=r"^not a database address$"):
        Store(address)
