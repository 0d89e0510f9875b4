"""Rows written as Python literals instead of JSON (`{'asin': '000', 'price': 3.17}`), as Amazon's metadata of 2014 are; read without `eval`."""

import ast
import json
import re

MAX_DEPTH = 50
TOKEN = re.compile(
    r"""\s*(?:([\[\]{}():,])|([uUbB]?'[^'\\]*(?:\\.[^'\\]*)*'|[uUbB]?"[^"\\]*(?:\\.[^"\\]*)*")|([^\s\[\]{}():,'"]+))\s*""", re.S
)
WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
CLOSING = {"[": "]", "{": "}", "(": ")"}


def parse(line):
    """The object of a line of JSON or of a Python literal of dicts, lists, tuples, strings, numbers, True, False and None.

    Raises:
        ValueError: neither; says where it stopped. Nesting beyond 50 levels is refused.
    """
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        pass
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    tokens = _tokens(line)
    value = _value(tokens, next(tokens), 0)
    if (end := next(tokens))[0] != "end":
        raise ValueError(f"unexpected {end[1]!r} after the end of the object")
    return value


def _tokens(line):
    """Yield (kind, value): punctuation as its own kind, `value` for strings and words, and `end` for ever."""
    place = 0
    while place < len(line):
        match = TOKEN.match(line, place)
        if not match:
            if not line[place:].strip():
                break
            raise ValueError(f"unexpected {line[place : place + 20]!r} at column {place + 1}")
        mark, text, word = match.groups()
        yield (mark, mark) if mark else ("value", _string(text) if text is not None else _word(word))
        place = match.end()
    while True:
        yield "end", "end of the line"


def _string(text):
    if "\\" not in text:
        return text[2:-1] if text[0] in "uUbB" else text[1:-1]
    try:
        value = ast.literal_eval(text)  # a single string token
    except SyntaxError as error:
        raise ValueError(f"a string with a broken escape: {text[:40]!r}") from error
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _word(word):
    if word in WORDS:
        return WORDS[word]
    try:
        return float(word) if re.search(r"[.eEnN]", word) else int(word[:400])
    except ValueError:
        raise ValueError(f"unexpected {word[:20]!r}") from None


def _value(tokens, token, depth):
    kind, value = token
    if kind == "value":
        return value
    if kind not in CLOSING:
        raise ValueError(f"unexpected {value!r}")
    if depth >= MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels of nesting")
    result = {} if kind == "{" else []
    while (token := next(tokens))[0] != CLOSING[kind]:
        item = _value(tokens, token, depth + 1)
        if kind == "{":
            if next(tokens)[0] != ":" or isinstance(item, (dict, list)):
                raise ValueError(f"no colon after the key {str(item)[:20]!r}")
            result[item] = _value(tokens, next(tokens), depth + 1)
        else:
            result.append(item)
        if (after := next(tokens))[0] == CLOSING[kind]:
            break
        if after[0] != ",":
            raise ValueError(f"unexpected {after[1]!r}, not a comma")
    return result
