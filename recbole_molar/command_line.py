"""What a user types: YAML files of properties, and `--key=value` words with YAML values."""

import re
from pathlib import Path

import yaml

from recbole_molar.lookup import PACKAGE

MOST_VALUES = 100_000  # in one file


def properties_dir():
    """Folder of our YAML files: in a checkout beside the package, in a wheel inside it."""
    checkout = PACKAGE.parent / "properties"
    return checkout if (checkout / "overall.yaml").is_file() else PACKAGE / "properties"


def yaml_loader():
    """A safe loader that reads 1e-4 as a number and None as ~ (as RecBole's command line), leaves 2024-10-11 a string, and refuses a key given twice."""
    return _with_our_words(type("PropertyLoader", (yaml.SafeLoader,), {"construct_mapping": _construct_mapping}))


def dump_yaml(value, **options):
    """YAML text that :func:`load_yaml` reads as the same value: the words "1e5" and "None" get quotes. `options` are PyYAML's."""
    return yaml.dump(value, Dumper=_with_our_words(type("PropertyDumper", (yaml.SafeDumper,), {})), allow_unicode=True, **options)


def _with_our_words(kind):
    resolvers = {first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"] for first, rules in kind.yaml_implicit_resolvers.items()}
    kind.yaml_implicit_resolvers = resolvers
    scientific = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    kind.add_implicit_resolver("tag:yaml.org,2002:float", scientific, list("-+0123456789"))
    kind.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^None$"), ["N"])
    return kind


def _construct_mapping(self, node, deep=False):
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)] if isinstance(node, yaml.MappingNode) else []
    twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"{twice}: given twice", node.start_mark)
    return yaml.SafeLoader.construct_mapping(self, node, deep)


def load_yaml(text):
    """A value from YAML text, without tags of Python.

    Raises:
        ValueError: not YAML, or anchors that unfold to more than MOST_VALUES values.
    """
    return _load_with_lines(text)[0]


def _load_with_lines(text):
    """The value of a text and, where it is a dictionary, the line of each of its keys, from 1."""
    try:
        loader = yaml_loader()(text)
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
        lines = {loader.construct_object(key): key.start_mark.line + 1 for key, _ in node.value} if isinstance(value, dict) else {}
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except Exception as error:  # `!!bool x` and the like raise anything from inside PyYAML
        raise ValueError(str(error)) from error
    left, count = [value], 0
    while left:  # what is written once and named a thousand times would fill the memory once it is printed
        inner, count = left.pop(), count + 1
        if count > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values, anchors unfolded")
        left.extend([*inner, *inner.values()] if isinstance(inner, dict) else inner if isinstance(inner, (list, tuple, set)) else ())
    return value, lines


def read_yaml(path):
    """Properties of a file; raises as :func:`read_with_lines`."""
    return read_with_lines(path)[0]


def read_with_lines(path):
    """Read a file of properties.

    Returns:
        tuple: key -> value, key -> the line that it stands in, from 1.

    Raises:
        ValueError: no such file, not YAML, or not `key: value` lines; names the file (and line).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot read this configuration file ({error.strerror}).") from error
    except ValueError as error:  # not UTF-8, or a NUL in the name
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    try:
        value, lines = _load_with_lines(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if value is None:
        return {}, {}
    if not isinstance(value, dict):
        raise ValueError(f"{path}: found a {type(value).__name__}; write one `key: value` on each line.")
    return value, lines


def refuse_run_words(properties, place):
    """Raise ValueError where properties name what only a command line can: other files of properties, or a run to go on with; place (str): where."""
    word = next((key for key in ("config_files", "resume") if key in properties), None)
    if word:
        raise ValueError(f"{place}: {word}={properties[word]}: would not be read there. Give --{word} on the command line, or write out what that file says.")


def parse_command_line(arguments):
    """`--key=value` and `--key value` as a dict; values are YAML.

    Raises:
        ValueError: a stray word, a key without a value, a key given twice, or a value that is not YAML.
    """
    given, index = {}, 0
    while index < len(arguments):
        word = arguments[index]
        if not word.startswith("--") or len(word) < 3:
            raise ValueError(f"{word}: expected --key=value or --key value.")
        key, equals, text = word[2:].partition("=")
        if not equals:
            index += 1
            if index == len(arguments) or arguments[index].startswith("--"):
                raise ValueError(f"--{key}: has no value. Write --{key}=value.")
            text = arguments[index]
        index += 1
        if key in given:
            raise ValueError(f"--{key}: given twice.")
        if key.endswith("_num_interval") and text[:1] in ("[", "("):
            given[key] = text  # [5,inf) is RecBole's notation, not YAML
            continue
        try:
            given[key] = load_yaml(text)
        except ValueError as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"--{key}={text[:200]}: the value is not valid YAML ({reason}). Put quotes around text with special signs.") from error
    return given


def config_file_list(value):
    """`config_files` as paths: a list, or names separated by commas or spaces; looked up in `properties/` too."""
    text = str(value or "").strip()
    names = value if isinstance(value, list) else [text] if Path(text).is_file() else re.split(r"[,\s]+", text)
    paths = []
    for name in map(str, filter(None, names)):
        shipped = properties_dir() / name.removeprefix("properties/")
        paths.append(str(shipped) if not Path(name).is_file() and shipped.is_file() else name)
    return paths
