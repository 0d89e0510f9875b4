"""`show-config`: the merged configuration of a run, and where each value comes from."""

import warnings

from recbole_molar.command_line import config_file_list, dump_yaml, parse_command_line
from recbole_molar.config import Config
from recbole_molar.lookup import did_you_mean

WIDTH = 50  # columns before an origin


def show_config(arguments):
    """The configuration as YAML, which `--config_files` reads, with the origin of each value as a comment.

    Args:
        arguments (list of str): `--key=WORD` shows only the properties whose names hold the word; and the options of a run.

    Returns:
        str.

    Raises:
        ValueError: bad input, or no such property.
    """
    warnings.filterwarnings("ignore", module="recbole|pandas")
    given = parse_command_line(arguments)
    word = str(given.pop("key", ""))
    if "resume" in given:
        raise ValueError(f"--resume={given['resume']}: not read here; the properties of a run stand in its folder's config.yaml.")
    config = Config(config_file_list=config_file_list(given.get("config_files")), config_dict=given)
    properties = config.as_yaml()
    shown = {key: value for key, value in sorted(properties.items()) if word in key}
    if not shown:
        raise ValueError(f"--key={word}: no property of {config['model']} has this in its name.{did_you_mean(word, properties)}")
    return "\n".join(_line(key, value, _origin(config, key)) for key, value in shown.items())


def _origin(config, key):
    origin = config.origins.get(key, "worked out from the others")
    return f"{origin}, over {config.under[key]}" if key in config.under else origin


def _line(key, value, origin):
    text = dump_yaml(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    return f"{f'{key}: {text}':<{WIDTH}}  # {origin}"
