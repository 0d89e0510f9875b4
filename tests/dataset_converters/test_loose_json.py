"""Python-literal rows: the same as `ast.literal_eval` on what is honest, an error on what is not."""

import ast

import pytest
from raw_layouts import HOSTILE

from dataset_converters.loose_json import parse

ROW = {"asin": "0", "title": "it's \"x\"", "price": 3.17, "n": -5, "small": 1e-9,
       "related": {"a": ["1", "2"], "b": []}, "c": [["x", "y"]], "none": None, "t": True}  # fmt: skip


@pytest.mark.parametrize("row", [ROW, {}, {"d": HOSTILE}, {"a": ("x", 1, ())}, {"u": "\u2028\x00\\"}, {"deep": [[[[[[["x"]]]]]]]}])
def test_reads_what_python_wrote(row):
    def listed(value):
        return [listed(item) for item in value] if isinstance(value, (list, tuple)) else value

    line = repr(row)
    assert parse(line) == {key: listed(value) for key, value in ast.literal_eval(line).items()} == {key: listed(value) for key, value in row.items()}


def test_reads_json_and_odd_spacing():
    assert parse('{"a": [1, null, true]}') == {"a": [1, None, True]}
    assert parse(" { 'a' : [ 1 , 2 , ] , u'b':'x', } ") == {"a": [1, 2], "b": "x"}


@pytest.mark.parametrize("line", [
    "", "{", "{'a'", "{'a':", "{'a': 1", "{'a': 1,, }", "{'a' 1}", "{'a': 1} x", "{'a': 'cut off", "{1: {}: 2}", "{[1]: 2}", "[1 2]", "(1, 2]", "{'a': b}",
    "__import__('os')", "{'a': __import__('os').system('x')}", "{'a': 1+1}", "{'a': f'{x}'}", "{'a': '\\x1'}", "{'a': " + "[" * 60 + "]" * 60 + "}",
    "[" * 100_000, "{'a':" * 100_000, "-" * 100_000 + "1",
])  # fmt: skip
def test_refuses(line):
    with pytest.raises((ValueError, RecursionError)):
        parse(line)
