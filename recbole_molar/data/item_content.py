"""What is known of each item: one row per internal item id, read raw from the `.item` file and the image folder."""

import difflib
import hashlib
import json
import logging
import os
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from recbole_molar.data.image import MAX_FILE_BYTES, ImageStore
from recbole_molar.property_error import PropertyError, bad_value

MODALITIES = ("text", "image")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
ESCAPED = re.compile(r"\\([tnr\\])")


@dataclass(frozen=True, slots=True)
class Item:
    """One item: its external id, text by column in prompt order (empty columns left out), long description, title and image file."""

    id: str
    fields: dict = field(default_factory=dict)
    description: str = ""
    title: str = ""
    image_path: Path | None = None


class ItemContent:
    """Text and images of all items of a data set, by internal id; row 0 is padding and empty.

    Args:
        items (list): one :class:`Item` for each internal id.
        description_field (str, optional): name of the column of long text.
    """

    def __init__(self, items, description_field=None):
        self.items = items
        self.description_field = description_field
        self._images = {}

    @classmethod
    def read(cls, item_file, item_ids, text_fields, description_field=None, title_field=None, image_dir=None,
             modalities=MODALITIES, field_separator="\t", id_field="item_id", escaped=False, encoding=None):
        """Read the `.item` file (raw: RecBole's own reader eats quotes and splits words) and look the images up.

        A modality that is left out is never read, neither as MIRM's input nor as a text that stage 1 learns to generate.

        Args:
            item_file (Path): RecBole's atomic file, header `name:type`; its columns stand `field_separator` apart, ids in column `id_field`.
            item_ids (list): external id (string) of each internal id; entry 0 is `[PAD]`.
            text_fields (list): columns in prompt order.
            description_field (str, optional): the long text; read last in the prompt whatever its place in `text_fields`.
            title_field (str, optional): what names the item; by default the first column whose name holds "title" or "name".
            image_dir (Path, optional): folder of `<item_id>.jpg|jpeg|png|webp`.
            modalities (list): of `text` and `image`.
            encoding (str, optional): of an `.item` file that is not UTF-8.
            escaped (bool): cells hold `\\t`, `\\n`, `\\r` and `\\\\` for tab, line ends and backslash, as the converters write them.

        Raises:
            ValueError: anything wrong in the file, the columns, the ids or the folder; says what to do.
        """
        modalities = check_modalities(modalities)
        texts = {}
        if "text" in modalities:
            columns, rows = _read_atomic(Path(item_file), field_separator, id_field, set(item_ids[1:]), encoding)
            clean = _unescape if escaped else str.strip
            rows = {key: [clean(cell) for cell in row] for key, row in rows.items()}
            wanted = list(dict.fromkeys([*text_fields, *filter(None, [description_field, title_field])]))
            _check_columns(item_file, columns, text_fields, wanted)
            if not rows and len(item_ids) > 1:
                raise ValueError(
                    f"{item_file}: shares no {id_field} with the interactions, whose ids look like {_some(item_ids[1:])}. "
                    f"Use the same ids in .item and .inter."
                )
            title_field = title_field or next((name for name in text_fields if "title" in name or "name" in name), text_fields[0])
            order = sorted(text_fields, key=lambda name: name == description_field)
            texts = {key: {name: row[columns.index(name)] for name in wanted} for key, row in rows.items()}
        paths = find_images(image_dir, item_ids[1:]) if "image" in modalities and image_dir else {}
        items = [Item("")]
        for key in item_ids[1:]:
            row = texts.get(key, {})
            fields = {name: row[name] for name in order if row[name]} if row else {}
            items.append(Item(key, fields, row.get(description_field, ""), row.get(title_field, ""), paths.get(key)))
        return cls(items, description_field if "text" in modalities else None)

    def __len__(self):
        return len(self.items)

    @property
    def texts(self):
        """All text of each item as one string: what a tokenizer is trained on."""
        return ["\n".join(dict.fromkeys([*item.fields.values(), item.description])) for item in self.items]

    @property
    def has_images(self):
        """True where at least one item has an image file."""
        return any(item.image_path for item in self.items)

    def has_readable_image(self, size):
        """True where at least one image can be read at [width, height]; decodes until it finds one."""
        return self.has_images and any(self.images(tuple(size)).get(index) is not None for index in range(1, len(self)))

    def only(self, modality):
        """The same items with `text` or `image` alone, for an encoder that reads nothing else: a change in the other is none to it."""
        if modality == "text":
            return ItemContent([replace(item, image_path=None) for item in self.items], self.description_field)
        return ItemContent([replace(item, fields={}, description="", title="") for item in self.items])

    def images(self, size):
        """The :class:`ImageStore` of these items at (width, height); one for each size."""
        if size not in self._images:
            self._images[size] = ImageStore([item.image_path for item in self.items], size)
        return self._images[size]

    def report(self):
        """Counts for the log: items, those without text, without an image, and (of those decoded so far) with a broken one."""
        real = self.items[1:]
        return {
            "items": len(real),
            "no_text": sum(not item.fields for item in real),
            "no_image": sum(item.image_path is None for item in real),
            "broken_images": len(set().union(*(store.broken for store in self._images.values()))),
        }

    def fingerprints(self):
        """sha256 of each item's text fields and image bytes, as hex, by internal id."""
        return self._fingerprints

    def hash_into(self, digest):
        """Add to a hash all that a model may read of the items: text fields and pictures, titles and descriptions."""
        for mark, item in zip(self.fingerprints(), self.items, strict=True):
            digest.update(f"{mark}{item.title}\t{item.description}\n".encode())

    @cached_property
    def _fingerprints(self):
        return [_fingerprint(item) for item in self.items]


def _fingerprint(item):
    digest = hashlib.sha256(json.dumps(list(item.fields.items())).encode())
    if item.image_path is not None:
        digest.update(b"\0image\0")
        digest.update(_picture_hash(item.image_path))
    return digest.hexdigest()


def _picture_hash(path):
    """Of the file's bytes; where it is no picture that is ever read, of that."""
    try:
        with open(path, "rb", buffering=0) as file:  # a quarter less time than Path.read_bytes
            return hashlib.sha256(file.readall()).digest() if os.fstat(file.fileno()).st_size <= MAX_FILE_BYTES else b"too large"
    except OSError:
        return b"unreadable"


def check_modalities(modalities):
    """The modalities as a list.

    Raises:
        ValueError: none, or an unknown one.
    """
    chosen = [modalities] if isinstance(modalities, str) else list(modalities)
    if not chosen or any(name not in MODALITIES for name in chosen):
        raise ValueError(f"item_modalities={chosen}: valid are lists of one or both of {', '.join(MODALITIES)}.")
    return chosen


def encoding_of(path, given=None):
    """UTF-8, with or without a mark; where a file is not that, the one given for the data set, if there is one."""
    if given:
        try:
            with open(path, encoding="utf-8-sig") as file:
                for _ in file:
                    pass
        except UnicodeDecodeError:
            return given
    return "utf-8-sig"


def read_header(path, separator, encoding):
    """Columns of an atomic file as they stand, `name:type`, without a byte-order mark.

    Raises:
        ValueError: the file is empty or not UTF-8.
    """
    try:
        with open(path, encoding=encoding, newline="\n") as file:
            line = file.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(path, error)) from error
    if not line:
        raise ValueError(f"{path}: has no header. Its first line must name the columns, name:type, for example item_id:token.")
    return line.split(separator)


def _not_utf8(path, error):
    return f"{path}: not UTF-8 ({error}). Set --encoding, for example latin-1, or convert it: `iconv -f latin1 -t utf8`."


def _read_atomic(path, separator, id_field, wanted, encoding):
    """Columns and rows (cells as they stand) of an atomic file, for ids in `wanted`; the first of several rows with one id wins."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Item text is read from it; add it, or set item_modalities=[image].")
    rows, repeated, encoding = {}, 0, encoding_of(path, encoding)
    try:
        columns = [name.rpartition(":")[0] or name for name in read_header(path, separator, encoding)]
        # Lines end at "\n" alone, and no csv reader: quotes and odd line separators inside a cell are text.
        with open(path, encoding=encoding, newline="\n") as file:
            file.readline()
            if id_field not in columns:
                raise ValueError(f"{path}: no column {id_field} in its header. Found: {', '.join(columns)}.")
            place = columns.index(id_field)
            for number, line in enumerate(file, start=2):
                cells = line.rstrip("\r\n").split(separator)
                if len(cells) != len(columns):
                    if cells == [""]:
                        continue
                    raise ValueError(
                        f"{path}, line {number}: {len(cells)} columns, but the header has {len(columns)}. "
                        f"Remove separators and line breaks inside cells."
                    )
                repeated += cells[place] in rows
                if cells[place] in wanted:
                    rows.setdefault(cells[place], cells)
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(path, error)) from error
    if repeated:
        logging.getLogger().warning("%s: %d rows repeat an id; the first row of each is used.", path, repeated)
    return columns, rows


def _unescape(cell):
    """Undo the converters' escapes; any other backslash stays as it is, spaces too."""
    return ESCAPED.sub(lambda match: ESCAPES[match[1]], cell) if "\\" in cell else cell


def _check_columns(path, columns, text_fields, wanted):
    if not text_fields:
        raise ValueError(f"item_text_fields is empty, but item_modalities has text. Columns of {path}: {', '.join(columns)}.")
    for name in wanted:
        if name not in columns:
            near = difflib.get_close_matches(str(name), columns, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise PropertyError("item_text_fields", f"item_text_fields: {path} has no column {name}.{hint} Columns: {', '.join(columns)}.")


def find_images(folder, item_ids):
    """External id -> image file. Names are compared with what the folder lists, so that an id such as `../x` cannot leave it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise bad_value("item_image_dir", folder, "no such folder. Set item_image_dir, or item_modalities=[text].")
    wanted, found, outside = set(item_ids), {}, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, extension = os.path.splitext(entry.name)
            if stem in wanted and extension.lower() in EXTENSIONS and entry.is_file():
                rank = EXTENSIONS.index(extension.lower())
                if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(os.path.realpath(folder)):
                    outside += 1
                    continue
                if stem not in found or rank < found[stem][0]:
                    found[stem] = (rank, Path(entry.path))
    if outside:
        logging.getLogger().warning("%s: %d symbolic links lead out of the folder and are not followed.", folder, outside)
    if not found:
        raise ValueError(
            f"item_image_dir={folder}: no file there is named <item_id>{'|'.join(EXTENSIONS)} for ids such as {_some(item_ids)}. "
            f"Set item_image_dir, or item_modalities=[text]."
        )
    return {stem: path for stem, (_, path) in found.items()}


def _some(item_ids):
    return ", ".join(list(item_ids)[:3])
