"""What a user types: YAML files of properties, and `--key=value` words with YAML values."""

import re
from pathlib import Path

import yaml

from recbole_molar.lookup import PACKAGE


def properties_dir():
    """Folder of our YAML files: in a checkout beside the package, in a wheel inside it."""
    checkout = PACKAGE.parent / "properties"
    return checkout if (checkout / "overall.yaml").is_file() else PACKAGE / "properties"


def yaml_loader():
    """A safe loader that reads 1e-4 as a number and None as ~ (as RecBole's command line), and leaves 2024-10-11 a string."""
    loader = type("PropertyLoader", (yaml.SafeLoader,), {})
    resolvers = {first: [rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"] for first, rules in loader.yaml_implicit_resolvers.items()}
    loader.yaml_implicit_resolvers = resolvers
    scientific = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    loader.add_implicit_resolver("tag:yaml.org,2002:float", scientific, list("-+0123456789"))
    loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^None$"), ["N"])
    return loader


def read_yaml(path):
    """Read a file of properties.

    Raises:
        ValueError: no such file, not YAML, or not `key: value` lines; names the file (and line).
    """
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml_loader())
    except OSError as error:
        raise ValueError(f"{path}: cannot read this configuration file ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{path}: found a {type(value).__name__}; write one `key: value` on each line.")
    return value


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
            given[key] = yaml.load(text, Loader=yaml_loader())
        except yaml.YAMLError as error:
            raise ValueError(f"--{key}={text}: the value is not valid YAML. Put quotes around text with special signs.") from error
    return given


def config_file_list(value):
    """`config_files` as paths: a list, or names separated by commas or spaces; looked up in `properties/` too."""
    text = str(value or "").strip()
    names = value if isinstance(value, list) else [text] if Path(text).is_file() else re.split(r"[,\s]+", text)
    paths = []
    for name in filter(None, names):
        shipped = properties_dir() / str(name).removeprefix("properties/")
        paths.append(str(shipped if not Path(name).is_file() and shipped.is_file() else name))
    return paths
