"""Part name -> class."""

import pytest

from recbole_molar import lookup
from recbole_molar.lookup import available, find_class


def test_one_class_a_file_found_by_its_name():
    assert {"Molar", "Popularity"} <= set(available("model.sequential_recommender"))
    assert available("model.id_model") == {"IDModel": "recbole_molar.model.id_model.id_model"}
    found = find_class("Popularity", "model.sequential_recommender")
    assert found.__name__ == "Popularity" and found.__module__ == "recbole_molar.model.sequential_recommender.popularity"


def test_a_new_file_is_a_new_part(tmp_path, monkeypatch):
    folder = tmp_path / "kind"
    folder.mkdir()
    (folder / "my_part.py").write_text("import no_such_package_that_must_not_be_imported\nclass MyPart: pass\nclass Helper: pass\n")
    (folder / "__init__.py").write_text("class Init: pass\n")
    monkeypatch.setattr(lookup, "PACKAGE", tmp_path)
    available.cache_clear()
    try:
        assert available("kind") == {"MyPart": "recbole_molar.kind.my_part"}
        assert available("no_such_kind") == {}
    finally:
        available.cache_clear()


def test_dotted_path_is_imported_as_it_is():
    assert find_class("collections.Counter", "model.user_encoder").__name__ == "Counter"


@pytest.mark.parametrize("name, message", [
    ("dueg", r"user_encoder=dueg: no such part\. Did you mean DUEG\? Valid: .*DUEG.*, or a dotted path to a class\."),
    ("zzz", r"user_encoder=zzz: no such part\. Valid: "), (7, "user_encoder=7: no such part"),
    ("no.such.Thing", "user_encoder=no.such.Thing: cannot import it .*Valid: .*DUEG"),
    ("collections.Nothing", "cannot import it"), (".Foo", "cannot import it"), ("..foo.Bar", "cannot import it"),
])
def test_unknown_part(name, message):
    with pytest.raises(ValueError, match=message):
        find_class(name, "model.user_encoder", key="user_encoder")
