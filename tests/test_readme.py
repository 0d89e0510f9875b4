"""What the README names exists: paths, properties, recipes and commands."""

import re
from pathlib import Path

import pytest

from recbole_molar.command_line import config_file_list, parse_command_line, read_yaml
from recbole_molar.compare.comparison import OPTIONS as COMPARE_KEYS
from recbole_molar.config import Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = ("path/to", "saved/", "images/", "Qwen/", "/")
# as in `--key=value`, and options of one command
PLACEHOLDERS = {"key", "id_", "run", "space", "trials", "sampler", "pruning", "models", "reference", "table", "rows"}


def paths():
    """Words in backticks, links and commands that look like paths of this repository."""
    words = re.findall(r"[\w.\-/]+/[\w.\-/]*|\b[\w\-]+\.(?:py|md|yaml|toml|ini)\b", README)
    return sorted({word.rstrip("/.") for word in words if (ROOT / word.split("/")[0]).exists() and not word.startswith(EXAMPLES)})


def test_readme_names_paths_at_all():
    assert len(paths()) > 10


@pytest.mark.parametrize("path", paths())
def test_path_exists(path):
    assert (ROOT / path).exists(), f"README.md names {path}"


def test_properties_exist():
    config, *others = (Config(model=model, dataset="ml-100k") for model in ("Molar", "SASRec", "SASRecContent", "CoLLM"))
    known = config.known_keys.union(*(other.known_keys for other in others))
    runs = "\n".join(line for line in README.splitlines() if "-m dataset_converters" not in line)  # those have options of their own
    named = set(re.findall(r"--(\w+)[= ]", runs)) | set(re.findall(r"^\| `(\w+)`", README, flags=re.M))
    table_rows = re.findall(r"^\| (`\w+`(?:, `\w+`)+) \|", README, flags=re.M)
    named |= {name for row in table_rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 15
    named -= PLACEHOLDERS | set(COMPARE_KEYS)
    unknown = {name for name in named if name not in known and not config._is_id_model_key(name)}
    assert not unknown


def commands():
    """Each `run_recbole_molar.py` command of the README, one line."""
    return sorted({line.split("#")[0].split("run_recbole_molar.py", 1)[1].strip() for line in README.splitlines() if "run_recbole_molar.py --" in line})


@pytest.mark.parametrize("command", [command for command in commands() if "--resume" not in command])
def test_command_is_understood(command):
    given = parse_command_line(command.split("`")[0].split())
    assert Config(config_file_list=config_file_list(given.get("config_files")), config_dict=given)["model"]


@pytest.mark.parametrize("recipe", sorted((ROOT / "properties" / "recipe").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_is_understood(recipe):
    dataset = read_yaml(recipe).get("dataset", "ml-1m")
    assert Config(dataset=dataset, config_file_list=[recipe])["model"]


@pytest.mark.parametrize("file", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.stem)
def test_links_lead_to_files(file):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", file.read_text(encoding="utf-8"))
    assert not [link for link in links if not (file.parent / link).exists()]
