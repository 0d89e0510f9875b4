"""The search space of `tune`: our YAML, or RecBole's `hyper.test` text."""

import ast
import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from recbole_molar.command_line import config_file_list, read_with_lines
from recbole_molar.lookup import did_you_mean
from recbole_molar.property_error import PropertyError

KINDS = ("choice", "uniform", "log_uniform", "int")
FORM = "{choice: [a, b]}, {uniform: [low, high]}, {log_uniform: [low, high]} or {int: [low, high]}"
RECBOLE_KINDS = {"choice": 0, "uniform": 2, "quniform": 3, "loguniform": 2}  # and how many numbers each takes


@dataclass
class Dimension:
    """One property to search over.

    Args:
        key (str): the property.
        kind (str): one of `KINDS`.
        low, high (number): of a range, both included. step (number, optional): of a uniform or int range.
        choices (dict): name as Optuna stores it -> value.
        condition (dict): key -> list of values; without them the property is left alone.
    """

    key: str
    kind: str
    low: float = None
    high: float = None
    step: float = None
    choices: dict = field(default_factory=dict)
    condition: dict = field(default_factory=dict)

    def is_active(self, values):
        """True where the other properties have the values that this one asks for."""
        return all(values.get(key) in wanted for key, wanted in self.condition.items())

    def suggest(self, trial):
        """The value that an Optuna trial has for this property."""
        if self.kind == "choice":
            return self.value(trial.suggest_categorical(self.key, list(self.choices)))
        if self.kind == "int":
            return trial.suggest_int(self.key, self.low, self.high, step=self.step or 1)
        return self.value(trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.kind == "log_uniform"))

    def value(self, stored):
        """The value that Optuna stores as `stored`."""
        if self.kind == "choice":
            return self.choices[stored]
        return round(stored, 12) if self.kind == "uniform" and self.step else stored  # 0.3, where Optuna counts 0.30000000000000004

    def stored(self, value):
        """A value as Optuna stores it; None if it lies outside."""
        if self.kind == "choice":
            return next((name for name, choice in self.choices.items() if choice == value and isinstance(choice, bool) == isinstance(value, bool)), None)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return None
        step = self.step or (1 if self.kind == "int" else None)
        return value if not step or math.isclose(round((value - self.low) / step) * step + self.low, value) else None

    def edges(self):
        """The values that must be valid, for all to be."""
        return list(self.choices.values()) if self.kind == "choice" else [self.low, self.high]

    def all_values(self):
        """Every value; None for a range without steps."""
        if self.kind == "choice":
            return list(self.choices.values())
        step = self.step or (1 if self.kind == "int" else None)
        return [round(self.low + index * step, 12) for index in range(round((self.high - self.low) / step) + 1)] if step else None


class Space:
    """What `tune` searches.

    Args:
        file (str): of our YAML, or RecBole's text if it ends otherwise; looked up in `properties/` too.

    Raises:
        ValueError: not readable, or not a space; names file and key.
    """

    def __init__(self, file):
        self.file = config_file_list([str(file)])[0]
        if Path(self.file).suffix in (".yaml", ".yml"):
            content, self.lines = read_with_lines(self.file)
            self.dimensions = [self._from_yaml(key, spec) for key, spec in content.items()]
        else:
            self.lines = {}
            self.dimensions = self._from_text()
        if not self.dimensions:
            raise ValueError(f"{self.file}: an empty space. Write one `key: {FORM.split(',')[0]}` on each line.")
        self._check_conditions()

    @property
    def keys(self):
        return [dimension.key for dimension in self.dimensions]

    def suggest(self, trial, values):
        """Property -> value of one trial; values (dict): all properties as they stand without the space."""
        chosen = {}
        for dimension in self.dimensions:
            if dimension.is_active({**values, **chosen}):
                chosen[dimension.key] = dimension.suggest(trial)
        return chosen

    def defaults(self, values):
        """The configuration as it stands, as Optuna stores it, and the keys whose value lies outside the space."""
        active = [dimension for dimension in self.dimensions if dimension.is_active(values)]
        stored = {dimension.key: dimension.stored(values.get(dimension.key)) for dimension in active}
        return stored, [key for key, value in stored.items() if value is None]

    def grid(self, values):
        """Every configuration, as Optuna stores it.

        Raises:
            ValueError: a range without steps.
        """
        endless = [dimension.key for dimension in self.dimensions if dimension.all_values() is None]
        if endless:
            raise ValueError(f"{self.file}: {endless[0]}: --sampler=grid needs a choice, an int range or a step. Or use --sampler=tpe.")
        points = [{}]
        for dimension in self.dimensions:
            points = [
                {**point, **one}
                for point in points
                for one in ([{dimension.key: value} for value in dimension.all_values()] if dimension.is_active({**values, **point}) else [{}])
            ]
        by_key = {dimension.key: dimension for dimension in self.dimensions}
        return [{key: by_key[key].stored(value) for key, value in point.items()} for point in points]

    def check(self, make_config, refused):
        """Try the ends of each range and every choice, each by itself: what contradicts another dimension is left to the trials.

        Args:
            make_config (callable): dict of properties -> Config. refused (dict): keys that are not searched over -> why.

        Raises:
            ValueError: an unknown key, a value that the property cannot take, or a key that must not be searched.
        """
        by_key = {dimension.key: dimension for dimension in self.dimensions}
        for dimension in self.dimensions:
            if dimension.key in refused:
                raise self._bad(dimension.key, f"is not searched over: {refused[dimension.key]}.")
            under, ahead = {}, [dimension]
            while ahead:  # what it depends on, and what that depends on
                for key, wanted in ahead.pop().condition.items():
                    under[key] = wanted[0]
                    ahead += [by_key[key]] if key in by_key else []
            for value in dimension.edges():
                try:
                    make_config({**under, dimension.key: value})
                except PropertyError as error:
                    if not ({error.key, *error.others} - {dimension.key}) & set(self.keys):  # else another value of that one may go with it
                        raise ValueError(f"{self.place(dimension.key)}: {error.text}") from error
                except ValueError as error:
                    raise ValueError(f"{self.place(dimension.key)}: {error}") from error

    # ---------------------------------------------------------------- reading

    def _bad(self, key, why):
        return ValueError(f"{self.place(key)}: {key}: {why}")

    def place(self, key):
        """Where a dimension stands: file and line."""
        return f"{self.file}, line {self.lines[key]}" if key in self.lines else self.file

    def _from_yaml(self, key, spec):
        if not isinstance(spec, dict):
            raise self._bad(key, f"found {spec!r}; write {FORM}.")
        for word in spec:
            if word not in (*KINDS, "step", "if"):
                raise self._bad(key, f"{word}: unknown.{did_you_mean(word, KINDS)} Valid: {FORM}, with step and if.")
        kinds = [word for word in spec if word in KINDS]
        if len(kinds) != 1:
            raise self._bad(key, f"needs one of {', '.join(KINDS)}; found {' and '.join(kinds) or 'none'}.")
        return self._dimension(str(key), kinds[0], spec[kinds[0]], spec.get("step"), spec.get("if"))

    def _dimension(self, key, kind, given, step=None, condition=None):
        if condition is not None and (not isinstance(condition, dict) or not condition):
            raise self._bad(key, f"if: found {condition!r}; write {{if: {{other_key: value}}}}, or a list of values.")
        condition = {name: wanted if isinstance(wanted, list) else [wanted] for name, wanted in (condition or {}).items()}
        if kind == "choice":
            if not isinstance(given, list) or not given or step is not None:
                raise self._bad(key, f"choice: found {given!r}; write {{choice: [a, b]}}, without step.")
            choices = {value if isinstance(value, str) else json.dumps(value): value for value in given}
            if len(choices) < len(given):
                raise self._bad(key, f"choice: {given} names one value twice.")
            return Dimension(key, kind, choices=choices, condition=condition)
        numbers = int if kind == "int" else (int, float)
        given = given if isinstance(given, list) else [given]
        if len(given) != 2 or not all(_is_number(value, numbers) for value in given) or not given[0] < given[1]:
            raise self._bad(key, f"{kind}: found {given}; write [low, high], two {'whole ' if kind == 'int' else ''}numbers, the lower first.")
        low, high = given if kind == "int" else map(float, given)
        if kind == "log_uniform" and (low <= 0 or step is not None):
            raise self._bad(key, f"log_uniform: found {given}; both ends must be above 0, and there is no step.")
        if step is not None:
            if not _is_number(step, numbers) or not 0 < step <= high - low:
                raise self._bad(key, f"step: found {step!r}; write a number above 0 and not above {high - low:g}.")
            high = round(low + math.floor((high - low) / step + 1e-9) * step, 12)
        return Dimension(key, kind, low, high, step, condition=condition)

    def _check_conditions(self):
        for place, dimension in enumerate(self.dimensions):
            above = {other.key: other for other in self.dimensions[:place]}
            for key, wanted in dimension.condition.items():
                if key in self.keys and key not in above:
                    raise self._bad(dimension.key, f"depends on {key}: put {key} above it.")
                never = [value for value in wanted if key in above and above[key].stored(value) is None]
                if never:
                    raise self._bad(dimension.key, f"if: {key} is never {never[0]!r} in this space.")

    def _from_text(self):
        """RecBole's `hyper.test`: `key choice [a,b]`, `key uniform low,high`, `key quniform low,high,step`, `key loguniform low,high` in powers of e."""
        try:
            lines = Path(self.file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.file}: cannot read this search space ({error}).") from error
        found = [self._from_line(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
        twice = next((one.key for one, other in itertools.combinations(found, 2) if one.key == other.key), None)
        if twice:
            raise self._bad(twice, "given twice.")
        return found

    def _from_line(self, number, line):
        words = line.split(maxsplit=2)
        if len(words) < 3 or words[1] not in RECBOLE_KINDS:
            raise ValueError(f"{self.file}, line {number}: found {line.strip()!r}; write `key kind values`, with a kind of {', '.join(RECBOLE_KINDS)}.")
        key, kind, text = words
        self.lines[key] = number
        try:
            given = ast.literal_eval(text) if kind == "choice" else [float(word) for word in text.split(",")]
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{self.file}, line {number}: {key}: {text}: not the values of a {kind} ({error}).") from error
        if kind == "choice":
            return self._dimension(key, kind, list(given) if isinstance(given, tuple) else given)
        if len(given) != RECBOLE_KINDS[kind] or not all(map(math.isfinite, given)):
            raise ValueError(f"{self.file}, line {number}: {key}: {kind} takes {RECBOLE_KINDS[kind]} numbers, found {text}.")
        if kind == "loguniform":
            return self._dimension(key, "log_uniform", [math.exp(value) for value in given])
        if kind == "uniform":
            return self._dimension(key, "uniform", given)
        low, high, step = (int(value) if all(one.is_integer() for one in given) else value for value in given)
        return self._dimension(key, "int" if isinstance(step, int) else "uniform", [low, high], step)


def _is_number(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
