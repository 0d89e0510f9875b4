"""Each property of ours has a field in the schema and a comment that says its type, range and choices as the schema does."""

import re

import pytest

from recbole_molar.command_line import properties_dir, read_with_lines
from recbole_molar.property_error import PropertyError
from recbole_molar.property_schema import Properties, check

FIELDS = Properties.model_json_schema()["properties"]
OTHERS = ("recipe", "hyper", "paper_table")  # values of a user's, spaces, and what rows a table has: no properties with a default
FILES = sorted(file for file in properties_dir().rglob("*.yaml") if file.relative_to(properties_dir()).parts[0] not in OTHERS)
KINDS = {"integer": "int", "number": "float", "boolean": "bool", "array": "list", "string": "str", "object": "dict"}
COMMENT = re.compile(r"\s# \(([^)]+)\) (\S.*)$")


def name_of(key):
    """The field that checks a key: `id_<key>` is checked as `<key>`."""
    return key if key in FIELDS or not key.startswith("id_") else key[3:]


def form(field):
    """What a comment has in its brackets: `int >= 1`, `float 0 to 1`, `str`, `list or ~`, `bool or whiten`; None where the schema has a function for it."""
    if "anyOf" in field:
        first, *others = field["anyOf"]
        lists = ", list" if any(other.get("type") == "array" for other in others) else ""
        words = "".join(f" or {other['const']}" for other in others if "const" in other)
        return form(first) + lists + words + (" or ~" if {"type": "null"} in others else "")
    if "type" not in field:
        return None
    least, most = field.get("minimum"), field.get("maximum")
    return KINDS[field["type"]] + (f" {least} to {most}" if most is not None else f" >= {least}" if least is not None else "")


def wrong(file):
    """What is wrong with the properties of a file, a line for each."""
    content, lines = read_with_lines(file)
    text, found = file.read_text(encoding="utf-8").splitlines(), []
    for key, value in content.items():
        comment, field = COMMENT.search(text[lines[key] - 1]), FIELDS.get(name_of(key))
        if field is None:
            found.append(f"{key}: no field in recbole_molar/property_schema.py")
            continue
        if comment is None:
            found.append(f"{key}: no comment `# (type) meaning`")
            continue
        if form(field) not in (comment[1], None):
            found.append(f"{key}: the comment says ({comment[1]}), the schema ({form(field)})")
        found += [f"{key}: the comment does not name {choice}" for choice in field.get("enum", []) if not re.search(rf"\b{choice}\b", comment[2])]
        try:
            check({name_of(key): value})
        except PropertyError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(properties_dir()).as_posix())
def test_every_key_has_a_field_and_its_comment(file):
    assert wrong(file) == []


@pytest.mark.parametrize("line, message", [
    ("new_key: 3   # (int) Something.", "new_key: no field"), ("id_new_key: 3   # (int) Something.", "id_new_key: no field"),
    ("epochs: 3", "epochs: no comment"), ("epochs: 3  # Most epochs.", "epochs: no comment"), ("epochs: 3  # (int >= 0)", "epochs: no comment"),
    ("epochs: 3  # (int) Most epochs.", r"epochs: the comment says .int., the schema .int >= 0."),
    ("epochs: -3  # (int >= 0) Most epochs.", "epochs=-3: must be"), ("id_epochs: -3  # (int >= 0) Most epochs.", "epochs=-3: must be"),
    ("lr_schedule: cosine  # (str) constant or another.", "lr_schedule: the comment does not name cosine"),
])
def test_what_the_test_finds(tmp_path, line, message):
    (tmp_path / "Foo.yaml").write_text(f"# Foo\n{line}\n")
    assert re.search(message, "\n".join(wrong(tmp_path / "Foo.yaml")))


@pytest.mark.parametrize("value", [{"no": "such"}, "8 bit?", -1e9, [[]], 2])
def test_any_bad_value_has_an_error_of_its_own(value):
    """Nothing but PropertyError, which names the key, comes of a value of any kind."""
    for key in FIELDS:
        try:
            check({key: value})
        except PropertyError as error:
            assert key in str(error)
