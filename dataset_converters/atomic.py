"""RecBole's atomic files, written once and for all converters: `.inter`, `.item`, `dataset.yaml` and `images/`.

All is written to a temporary folder beside the target, brought to the disk and renamed at the end, so that an error, Ctrl-C or a power cut
leaves nothing, or the data set that was there.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from dataset_converters.files import progress
from dataset_converters.interactions import describe, id_text, safe_id

ROWS = 200_000
SPECIAL = re.compile("[\\\\\t\n\r]")
ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as cut texts in JSON have; UTF-8 cannot hold it
NO_TEXT = re.compile(r"(?:^|_)(?:url|urls|id|ids|link|image|images|img|poster|picture|cover|photo|thumbnail|file|path)(?:_|$)", re.I)
PICTURES = (".jpg", ".jpeg", ".png", ".webp")  # that a run reads
DESCRIPTIONS = ("plot", "description", "overview", "summary", "abstract")


def escape(text):
    """A cell that holds any text: backslash, tab, newline and carriage return as `\\\\`, `\\t`, `\\n`, `\\r`; nothing else changes."""
    return SPECIAL.sub(lambda match: ESCAPES[match[0]], SURROGATE.sub("\ufffd", text))


def column_name(name):
    """A name that an atomic header can hold: no white space, no colon."""
    return re.sub(r"[\s:]+", "_", SURROGATE.sub("_", str(name)).strip()) or "column"


def is_text(name):
    """Whether a column is for the prompt: not a link, a file or a foreign id, by its name."""
    return not NO_TEXT.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))


def check_name(dataset):
    """Raise ValueError where the name of a data set is no plain file name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,100}", dataset, re.ASCII):
        raise ValueError(f"--dataset={dataset}: a name is made of letters, digits, dots, dashes and underscores.")


class AtomicFolder:
    """The folder `<output_path>/<dataset>/`, all or nothing; a context manager.

    Args:
        output_path (str): folder of data sets; made if need be.
        dataset (str): name of the data set.
        overwrite (bool): replace a data set of this name; files that no converter writes (pictures) stay.

    Raises:
        ValueError: a name that is no file name, or a target that exists.
    """

    def __init__(self, output_path, dataset, overwrite=False):
        check_name(dataset)
        self.output_path, self.dataset, self.target = Path(output_path), dataset, Path(output_path) / dataset
        self.interactions, self.item_counts, self.text_fields, self.notes, self.image_columns = None, Counter(), [], [], set()
        if self.target.exists() or self.target.is_symlink():
            if not overwrite:
                raise ValueError(f"{self.target}: exists. Choose another --dataset or --output-path, or add --overwrite.")
            if self.target.is_symlink() or not (self.target / f"{dataset}.inter").is_file():
                raise ValueError(f"{self.target}: a link, or holds no {dataset}.inter, so it is not overwritten. Move it away.")

    def __enter__(self):
        first = self.output_path.absolute()
        self.made = [folder for folder in (first, *first.parents) if not folder.exists()]  # from the inside out
        self.output_path.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f".{self.dataset}-", dir=self.output_path))
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self._write_properties()
                self._rename()
        except BaseException:
            kind = True
            raise
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # someone else wrote there meanwhile
                for folder in self.made if kind else ():
                    folder.rmdir()

    @property
    def images(self):
        """Folder of pictures, `<item_id>.<ending>`; made when first asked for."""
        folder = self.folder / "images"
        folder.mkdir(exist_ok=True)
        return folder

    def write_interactions(self, interactions):
        """Write `.inter`: user_id, item_id, rating (if there are any) and timestamp in seconds, in the order given."""
        self.interactions = interactions
        rated = interactions.rating is not None
        header = ["user_id:token", "item_id:token", *(["rating:float"] if rated else []), "timestamp:float"]
        with self._open(".inter") as file, progress(len(interactions), "write interactions", "rows") as bar:
            file.write("\t".join(header) + "\n")
            for start in range(0, len(interactions), ROWS):
                part = slice(start, start + ROWS)
                columns = [interactions.user_names[interactions.user[part]], interactions.item_names[interactions.item[part]]]
                columns += [_numbers(values[part]) for values in (interactions.rating, interactions.time) if values is not None]
                file.writelines(["\t".join(row) + "\n" for row in zip(*columns, strict=True)])
                bar.update(len(columns[0]))

    def write_items(self, columns, rows, text=is_text):
        """Write `.item` for the items of the interactions, the first of several rows for one item.

        Args:
            columns (list of str): names, without `item_id`; those for which `text` holds become `item_text_fields`.
            rows (iterable): (raw item id, list of cells); None is an empty cell.
            text (function): of a :func:`column_name`; default :func:`is_text`.
        """
        names = _distinct([column_name(name) for name in columns])
        self.text_fields = [new for new, name in zip(names, columns, strict=True) if text(column_name(name))]
        self.image_columns = {"image_url", "image_file"}.intersection(names)
        missing = self.interactions.item_set()
        known, total = set(missing), len(missing)
        with self._open(".item") as file, progress(total, "write items", "items") as bar:
            file.write("\t".join(["item_id:token", *(f"{name}:{'token_seq' if name in self.text_fields else 'token'}" for name in names)]) + "\n")
            for raw, cells in rows:
                key = safe_id(id_text(raw))
                if key not in missing:
                    self.item_counts["repeated" if key in known else "without interactions"] += 1
                    continue
                missing.remove(key)
                cells = ["" if cell is None else str(cell) for cell in cells]
                if len(cells) != len(names):
                    raise ValueError(f"item {key}: {len(cells)} cells for {len(names)} columns.")
                file.write("\t".join([key, *map(escape, cells)]) + "\n")
                bar.update(1)
        self.item_counts["with a row"], self.item_counts["without a row"] = total - len(missing), len(missing)
        if total == len(missing):
            raise ValueError(
                f"the items share no id with the interactions: these have {sorted(known)[:3]}. Give the files of one data set, and the right id column."
            )

    def _open(self, ending):
        return open(self.folder / f"{self.dataset}{ending}", "w", encoding="utf-8", newline="\n", buffering=1 << 20)

    def _write_properties(self):
        modalities = (["text"] if self.text_fields else []) + (["image"] if self._has_pictures() or (self.item_counts and not self.text_fields) else [])
        lines = ["# Written by dataset_converters; read with --data_path=<the folder above> --dataset=<this folder>.",
                 "load_col: {inter: [user_id, item_id, timestamp]}   # (dict) Columns that RecBole loads."]  # fmt: skip
        if modalities:
            lines.append(f"item_modalities: [{', '.join(modalities)}]   # (list) Add image once there are pictures in images/.")
        if self.text_fields:
            lines.append(f"item_text_fields: {json.dumps(self.text_fields, ensure_ascii=False)}   # (list) Columns of .item, in prompt order.")
            lines.append("item_text_escaped: True   # (bool) Tabs, line breaks and backslashes in cells are written as \\t, \\n, \\r and \\\\.")
        description = next((name for name in DESCRIPTIONS if name in self.text_fields), None)
        if description:
            lines.append(f"item_description_field: {description}   # (str) The long text.")
        (self.folder / "dataset.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _rename(self):
        mask = os.umask(0)
        os.umask(mask)
        self.folder.chmod(0o777 & ~mask)  # mkdtemp's folder is for its owner alone
        for file in self.folder.glob("*.*"):
            with open(file, "rb+") as stream:
                os.fsync(stream.fileno())
        if not self.target.exists():
            self.folder.rename(self.target)
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{self.dataset}-old-", dir=self.output_path)) / self.dataset
        self.target.rename(aside)
        try:
            self.folder.rename(self.target)
        except BaseException:
            aside.rename(self.target)
            aside.parent.rmdir()
            raise
        _merge(aside / "images", self.target / "images")
        ours = {f"{self.dataset}.inter", f"{self.dataset}.item", "dataset.yaml"}
        for entry in aside.iterdir():
            if entry.name not in ours and not (self.target / entry.name).exists():
                entry.rename(self.target / entry.name)
        shutil.rmtree(aside.parent)

    def _has_pictures(self):
        folders = (self.folder / "images", self.target / "images")
        return any(file.suffix.lower() in PICTURES for folder in folders if folder.is_dir() for file in folder.iterdir())

    def summary(self):
        """A paragraph (users, items, interactions, rows left out by cause, duplicates, item text) and the commands to run next."""
        data, items, counts = self.interactions, self.interactions.item_set(), self.item_counts
        text = [f"{self.target}: {data.n_users:,} users, {len(items):,} items, {len(data):,} interactions."]
        text.append(f"Left out: {describe(data.dropped)}." if data.dropped else "No row was left out.")
        kept = " (kept; --drop-duplicates removes them)" if data.duplicates and not any("repeating" in cause for cause in data.dropped) else ""
        text.append(f"{data.duplicates / max(1, data.read):.2%} of the rows repeat a user and item{kept}.")
        encoded = sum("%" in name for name in items) + sum("%" in name for name in data.user_names)
        if encoded:
            text.append(f"{encoded:,} ids hold a %: characters that a table or file name cannot hold are percent-encoded.")
        if counts:
            text.append(f"{counts['with a row']:,} items have text, {counts['without a row']:,} have none.")
            text += [f"{counts[cause]:,} item rows {words}." for cause, words in ITEM_CAUSES.items() if counts[cause]]
        model = "Molar" if self.text_fields or self._has_pictures() else "SASRec"
        where = shlex.join([f"--data_path={self.output_path}", f"--dataset={self.dataset}"])
        lines = [" ".join([*text, *filter(None, self.notes)])]
        if self.image_columns:
            source = "" if "image_url" in self.image_columns else " --from <their folder or zip>"
            lines.append(f"Pictures: python -m dataset_converters images {where.replace('data_path', 'data-path', 1)}{source}")
        return "\n".join([*lines, f"Next: python run_recbole_molar.py --model={model} {where}"])


def _merge(old, new):
    """Move what a folder of pictures has, and the new one does not (by name without the ending), to the new one; not what a link leads to."""
    if old.is_dir() and not old.is_symlink() and new.is_dir():
        there = {file.stem for file in new.iterdir()}
        for file in old.iterdir():
            if file.stem not in there:
                file.rename(new / file.name)


ITEM_CAUSES = {"repeated": "repeat an item and were left out", "without interactions": "have no interaction and were left out"}


def _numbers(values):
    """Numbers as text: integers without a point, others as short as they read back."""
    values = np.asarray(values)
    if (values == np.floor(values)).all() and np.abs(values).max(initial=0) < 2**53:
        return map(str, values.astype(np.int64).tolist())
    return ("" if text == "nan" else text for text in values.astype(str).tolist())


def _distinct(names):
    """Names made different: title, title_2, title_3."""
    seen, result = {"item_id"}, []
    for name in names:
        number, new = 2, name
        while new in seen:
            new, number = f"{name}_{number}", number + 1
        seen.add(new)
        result.append(new)
    return result


def add_output_arguments(parser):
    """Where every converter writes."""
    parser.add_argument("--output-path", required=True, metavar="FOLDER", help="folder of data sets; <FOLDER>/<dataset>/ is made")
    parser.add_argument("--dataset", metavar="NAME", help="name of the data set (default: from the input)")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of this name (its pictures stay)")
