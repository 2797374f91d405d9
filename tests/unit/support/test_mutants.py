"""The list of mutations is valid. `make mutants` runs them."""

from pathlib import Path

import pytest

from tests.mutants.mutations import Mutation, load, sample
from tests.mutants.tree import Tree
from tests.support.tree import ROOT

MUTATIONS = load()
NAMES = [mutation.name for mutation in MUTATIONS]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=NAMES)
def test_a_mutation_can_be_made_and_its_tests_exist(mutation: Mutation) -> None:
    source = (ROOT / mutation.file).read_text()
    assert mutation.applied(source) != source
    assert mutation.tests
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert not name or f"def {name}(" in (ROOT / file).read_text(), test
        assert (ROOT / file).is_file(), test


def test_a_mutation_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    entry = (
        '[[mutation]]\nname = "a"\nfile = "x.py"\ntext = "1"\nreplacement = "2"\ntests = ["t"]\n'
    )
    (tmp_path / "a.toml").write_text(entry)
    (mutation,) = load(tmp_path)
    assert mutation.applied("x = 1\n") == "x = 2\n"
    for source, count in (("x = 3\n", 0), ("x = 11\n", 2)):
        with pytest.raises(ValueError, match=rf"a: the text stands {count} times in x\.py"):
            mutation.applied(source)
    for wrong in (entry + entry, entry + 'more = "x"\n', entry.replace("file", "files")):
        (tmp_path / "a.toml").write_text(wrong)
        with pytest.raises(ValueError, match="a"):
            load(tmp_path)


def test_a_sample_is_the_same_for_the_same_seed_and_in_order() -> None:
    picked = sample(MUTATIONS, 12, "abc")
    assert picked == sample(MUTATIONS, 12, "abc")
    assert len(set(picked)) == 12
    assert picked == tuple(each for each in MUTATIONS if each in picked)
    assert picked != sample(MUTATIONS, 12, "abd")
    assert sample(MUTATIONS[:3], 12, "abc") == MUTATIONS[:3]


def test_a_tree_is_as_before_after_a_mutation(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").mkdir()
    compiled = tmp_path / "__pycache__" / "x.cpython-311.pyc"
    for path, text in ((tmp_path / "x.py", "x = 1\n"), (compiled, "x = 1")):
        path.write_text(text)
    mutation = Mutation(name="a", file="x.py", text="1", replacement="2", tests=("t",))
    with Tree(tmp_path).mutated(mutation):
        assert (tmp_path / "x.py").read_text() == "x = 2\n"
        assert not compiled.exists()
    assert (tmp_path / "x.py").read_text() == "x = 1\n"
