"""Fuzzing of all that reads what others wrote: the input is right or refused in a line, whatever its bytes.

    python tests/benchmarks/fuzz.py --minutes 10 [--targets yaml pictures ...] [--seed 0]

Each target is a property for hypothesis: a good result that can be read back, or ValueError (a Refused picture, exit code 2); never another
exception, never more than 5 seconds of work, never half an output. Rounds go on with new seeds, the same for the same --seed, until the time is
up. It prints what it found and ends with a table of executions. What it found is kept in tests/hostile/.
"""

import argparse
import contextlib
import functools
import gzip
import io
import json
import logging
import math
import os
import shutil
import signal
import string
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "dataset_converters")]

import numpy as np
import torch
import yaml
import hypothesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from PIL import Image

import raw_layouts
from tiny_data import tiny_interactions, write_inter, write_items

SECONDS, SLICE, SHOWN = 5, 4, 5  # seconds of one input, and of a target in a round; frames printed
counts, findings, spent = Counter(), {}, Counter()


def given(*strategies):
    """As hypothesis's, but it only notes the strategies: each round is a test of its own, with its own seed and number of examples."""
    return lambda function: (strategies, function)


class Hang(BaseException):
    """A target took longer than SECONDS; no `except Exception` swallows it."""


@contextlib.contextmanager
def time_limit(seconds=SECONDS):
    """Seconds of this process's own work: another job on the machine must not look like a hang."""

    def stop(*_):
        raise Hang(f"more than {seconds} seconds")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


# ------------------------------------------------------------------ mutations

SPICE = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b"\t", b",", b'"', b"'", b"\\", b"::", b"|", b"[" * 99, b"{" * 99, b"9" * 400, b"-", b"nan", b"inf",
    b"1e999", b"null", b"~", b"&a ", b"*a", b"!!python/name:os.system ", b"<<: ", b"../", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x1f\x8b", b"PK\3\4", b"",
]  # fmt: skip
edits = st.lists(st.tuples(
    st.sampled_from(["replace", "insert", "delete", "double", "cut", "flip"]), st.floats(0, 1), st.integers(0, 40),
    st.one_of(st.sampled_from(SPICE), st.binary(max_size=8)),
), min_size=1, max_size=6)  # fmt: skip


def mutated(data, changes):
    """Bytes with edits at shares of their length."""
    for kind, share, length, payload in changes:
        place = int(share * len(data))
        if kind == "replace":
            data = data[:place] + payload + data[place + len(payload):]
        elif kind == "insert":
            data = data[:place] + payload + data[place:]
        elif kind == "delete":
            data = data[:place] + data[place + length:]
        elif kind == "double":
            data = data[:place] + data[place : place + length] * 2 + data[place + length:]
        elif kind == "cut":
            data = data[:place]
        elif place < len(data):
            data = data[:place] + bytes([data[place] ^ (1 << length % 8)]) + data[place + 1:]
    return data


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.integers(10**300, 10**310), st.floats(), st.text(max_size=20),
    st.sampled_from(["", "nan", "1e5", "12", "2020-01-31", "2020-01-31T10:00:00Z", "31/12/1999", "9999-99-99", " 5 ", "NaT", "1_000", "0x10", "١٢"]),
)  # fmt: skip
json_values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)), max_leaves=12
)


# -------------------------------------------------------------------- targets


def target_command_line(work):
    from recbole_molar.command_line import parse_command_line

    words = st.one_of(st.text(max_size=30), st.builds("--{}={}".format, st.sampled_from(["topk", "eval_args", "user_inter_num_interval", "x"]),
        st.one_of(st.text(max_size=30), json_values.map(repr), json_values.map(json.dumps),
                  st.sampled_from(["[5,inf)", "!!bool x", "&a [*a]", "{a: 1, a: 2}", "!!timestamp x", "=", "!!binary é"]))))  # fmt: skip

    @given(st.lists(words, max_size=5))
    def check(given_words):
        with contextlib.suppress(ValueError):
            assert isinstance(parse_command_line(given_words), dict)

    return check


def target_yaml(work):
    from recbole_molar.command_line import load_yaml, read_yaml

    seeds = [file.read_bytes() for file in sorted((ROOT / "properties").rglob("*.yaml"))]
    seeds += [b"a: &x [1, 2]\nb: *x\nc: !!str 5\nd: {e: [~, None, 1e-4, 2024-10-11]}\n? f\n: g\n"]
    file = work / "mutated.yaml"

    @given(st.sampled_from(seeds), edits)
    def check(content, changes):
        file.write_bytes(mutated(content, changes))
        try:
            found = read_yaml(file)
        except ValueError as error:
            assert str(file) in str(error)
            return
        assert isinstance(found, dict)
        text = yaml.safe_dump(found, allow_unicode=True, sort_keys=False)
        assert repr(load_yaml(text)) == repr(found) or "!!" in text, text

    return check


def target_config(work):
    from recbole_molar.config import Config
    from recbole_molar.command_line import dump_yaml, load_yaml

    write_inter(work / "data" / "tiny", tiny_interactions())
    base = {"dataset": "tiny", "data_path": str(work / "data"), "use_cpu": True}
    models = ["SASRec", "Molar", "GRU4Rec"]
    keys = {model: sorted(map(str, Config(config_dict={"model": model, **base}).known_keys - {"config_files", "resume"})) for model in models}

    @given(st.sampled_from(models).flatmap(lambda model: st.tuples(st.just(model), st.dictionaries(st.sampled_from(keys[model]), json_values, max_size=2))))
    def check(chosen):
        model, given_values = chosen
        try:
            config = Config(config_dict={"model": model, **base, **given_values})
        except ValueError:
            return
        written = dump_yaml(config.as_yaml())
        again = Config(config_dict=load_yaml(written))
        assert dump_yaml(again.as_yaml()) == written

    return check


def target_loose_json(work):
    from dataset_converters.loose_json import parse

    plain = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)), max_leaves=15,
    )  # fmt: skip

    @given(plain, edits, st.booleans())
    def check(value, changes, spoil):
        text = repr({"row": value})
        if not spoil:
            assert parse(text) == {"row": value}
            assert parse(json.dumps({"row": value})) == {"row": value}
        else:
            with contextlib.suppress(ValueError):
                parse(mutated(text.encode("utf-8", "replace"), changes).decode("utf-8", "replace"))

    return check


def target_columns(work):
    from dataset_converters.columns import Times, check_ids, to_numbers
    from dataset_converters.interactions import InteractionReader, id_text, safe_id
    from urllib.parse import unquote

    @given(st.lists(json_values, min_size=1, max_size=6), st.lists(json_values, min_size=1, max_size=6), st.sampled_from(["auto", "s", "ns"]),
           st.sampled_from([None, "%d/%m/%Y", "%Y", "%z", "%%", "%"]), st.sampled_from(["UTC", "Europe/Berlin"]))  # fmt: skip
    def check(values, ids, unit, form, zone):
        for value in ids:
            text = id_text(value) if not isinstance(value, (list, dict)) else ""
            assert unquote(safe_id(text), errors="replace") == text.encode("utf-8", "replace").decode() or any("\ud800" <= sign <= "\udfff" for sign in text)
        try:
            numbers = to_numbers(values, "f", 1, "c")
            assert numbers.dtype == np.float64 and not np.isinf(numbers).any()
        except ValueError as error:
            assert str(error).startswith("f, row "), error
        try:
            times = Times(unit, form, zone)
            seconds = times(values, "f", 1, "c")
            times.scale(seconds[np.isfinite(seconds)].copy())
            size = min(len(values), len(ids))
            check_ids(ids[:size], "f", 1, "id")
            reader = InteractionReader()
            reader.add(ids[:size], ids[:size], seconds[:size])
            reader.finish("f")
        except ValueError as error:
            assert str(error).startswith(("f, row ", "f: ", "timestamp: ", "--timestamp-format=")), error

    return check


def target_tables(work):
    from dataset_converters.files import Plain, find_files, json_rows, lines, read_header, table_chunks
    from dataset_converters.item_files import record_chunks
    from dataset_converters.loose_json import parse

    text = b'a,b,c\n1,"x, ""y""",3\n4,5,6\n' * 3
    rows = b"".join(json.dumps({"a": 1, "b": ["x", {"c": None}]}).encode() + b"\n" for _ in range(3))
    packed = io.BytesIO()
    import zipfile

    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/ratings.csv", text * 20)
        archive.writestr("../movies.csv", text)
    seeds = [text, rows, gzip.compress(text), gzip.compress(rows), packed.getvalue(), text.replace(b",", b"\t")]

    @given(st.sampled_from(seeds), edits, st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.item", "t.parquet", "t.csv.gz"]))
    def check(content, changes, name):
        path = work / name
        path.write_bytes(mutated(content, changes))
        reads = [
            lambda: list(lines(Plain(path))), lambda: list(json_rows(Plain(path), parse)), lambda: read_header(Plain(path), ","),
            lambda: list(table_chunks(Plain(path), ",")), lambda: list(table_chunks(Plain(path), "\t", names=list("abcd"), quoted=False)),
            lambda: [frame for _, frame in record_chunks(path)], lambda: [list(lines(file, "latin-1")) for file in find_files(path).values()],
        ]  # fmt: skip
        for read in reads:
            try:
                read()
            except ValueError as error:
                assert name in str(error), error
        path.unlink()

    return check


def converter_inputs():
    """(converter, function that writes good input and gives the words, names of files to spoil)."""
    def movielens(release):
        def make(raw):
            return ["movielens", "--input-path", raw_layouts.movielens(raw, release)]

        return make

    def amazon(release):
        return lambda raw: ["amazon", "--input-path", raw_layouts.amazon(raw / "a", release)]

    def tabular(jsonl):
        def make(raw):
            raw.mkdir()
            rows = [{"user_id": f"u{u}", "item_id": f"i{i}", "rating": r, "timestamp": t} for u, i, r, t in raw_layouts.interactions()]
            items = [{"item_id": f"i{i}", "title": f"Title, {i}", "image": f"http://h/{i}.jpg"} for i in range(1, 7)]
            if jsonl:
                for name, table in (("clicks.jsonl", rows), ("items.jsonl", items)):
                    (raw / name).write_text("\n".join(map(json.dumps, table)) + "\n")
            else:
                for name, table in (("clicks.csv", rows), ("items.csv", items)):
                    raw_layouts.write_csv(raw / name, list(table[0]), [list(row.values()) for row in table])
            suffix = "jsonl" if jsonl else "csv"
            return ["tabular", "--input-path", raw / f"clicks.{suffix}", "--items", raw / f"items.{suffix}"]

        return make

    def pixelrec(raw):
        raw.mkdir()
        raw_layouts.write_csv(raw / "P.csv", ["item_id", "user_id", "timestamp"], [(i, u, t) for u, i, r, t in raw_layouts.interactions()])
        raw_layouts.write_csv(raw / "info.csv", ["item_id", "title", "tag"], [(i, f"T, {i}", "x") for i in range(1, 7)])
        return ["pixelrec", "--input-path", raw]

    made = [movielens(release) for release in ("ml-100k", "ml-1m", "ml-25m")]
    return [*made, *map(amazon, ("2014", "2018", "2023")), tabular(False), tabular(True), pixelrec]


def target_converters(work):
    from dataset_converters.__main__ import main

    makers, choices = converter_inputs(), [[], ["--k-core=2"], ["--min-rating=3", "--drop-duplicates"]]

    @given(st.integers(0, len(makers) - 1), st.integers(0, 20), edits, st.booleans(), st.sampled_from(choices))
    def check(which, file, changes, inside, options):
        raw, out = work / "raw", work / "out"
        shutil.rmtree(raw, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        words = makers[which](raw)
        files = sorted(path for path in raw.rglob("*") if path.is_file())
        path = files[file % len(files)]
        content = path.read_bytes()
        packed = inside and path.suffix == ".gz"
        content = mutated(gzip.decompress(content) if packed else content, changes)
        path.write_bytes(gzip.compress(content) if packed else content)
        said, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            code = main([*map(str, words), "--output-path", str(out), "--dataset", "made", *options])
        if code == 2:
            assert errors.getvalue().startswith("error: ") and errors.getvalue().count("\n") == 1, errors.getvalue()
            assert not out.exists(), sorted(out.rglob("*"))
        else:
            assert code == 0 and [entry.name for entry in out.iterdir()] == ["made"]
            check_atomic(out / "made")

    return check


def check_atomic(folder):
    """What a converter wrote can be read: rectangular, ids without white space at the ends, finite times."""
    inter, items, properties = raw_layouts.read_back(folder)
    assert inter and all(row["user_id"] and row["item_id"] and math.isfinite(float(row["timestamp"])) for row in inter)
    assert isinstance(yaml.safe_load(properties), dict)
    known = {row["item_id"] for row in inter}
    assert set(items) <= known and all("/" not in name and "\0" not in name for name in known)


def picture_seeds():
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 255, (24, 20, 3), dtype=np.uint8))
    found = []
    for form, mode, options in (("JPEG", "RGB", {}), ("JPEG", "CMYK", {}), ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "I;16", {}),
                                ("WEBP", "RGB", {}),
                                ("GIF", "P", {}), ("BMP", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}),
                                ("JPEG", "L", {"progressive": True})):  # fmt: skip
        buffer = io.BytesIO()
        with contextlib.suppress(OSError, ValueError):
            (image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)).save(buffer, form, **options)
            found.append(buffer.getvalue())
    return found


def target_pictures(work):
    from dataset_converters.causes import Refused
    from dataset_converters.picture import decode
    from recbole_molar.data.image import decode_image

    @given(st.sampled_from(picture_seeds()), edits)
    def check(content, changes):
        content = mutated(content, changes)
        with contextlib.suppress(Refused):
            image = decode(content, (16, 16), 1_000_000)
            assert image.mode == "RGB" and 1 <= image.width <= 16 and 1 <= image.height <= 16
        (work / "i.png").write_bytes(content)
        pixels = decode_image(work / "i.png", (8, 12), max_pixels=1_000_000)
        assert pixels is None or (pixels.shape == (12, 8, 3) and pixels.dtype == np.uint8)

    return check


def target_checkpoints(work):
    from recbole_molar.checkpoint import load_tensors, save_tensors
    from recbole_molar.model.item_embedding import ItemEmbedding

    path = work / "x.safetensors"
    tensors = {"rows": torch.arange(8.0).reshape(2, 4), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(3)}
    save_tensors(path, tensors, {"items": ["a", "b"], "checksum": "x", "epoch": 3})
    content = path.read_bytes()

    @given(edits)
    def check(changes):
        path.write_bytes(mutated(content, changes))
        try:
            found, meta = load_tensors(path)
            assert isinstance(meta, dict) and all(torch.is_tensor(value) for value in found.values())
        except ValueError as error:
            assert str(path) in str(error)
        assert all(row.shape == (4,) for row in ItemEmbedding(work)._read(path, 4).values())

    return check


def target_atomic_files(work):
    from recbole_molar.config import Config
    from recbole_molar.data.item_content import ItemContent
    from recbole_molar.quick_start import prepare

    folder = work / "data" / "tiny"
    write_inter(folder, tiny_interactions(12, 8))
    write_items(folder, 8)
    inter, item = (folder / "tiny.inter").read_bytes(), (folder / "tiny.item").read_bytes()
    given_values = {"model": "SASRec", "dataset": "tiny", "data_path": str(work / "data"), "use_cpu": True, "topk": [3], "valid_metric": "NDCG@3",
                    "hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1}  # fmt: skip

    @given(edits, st.booleans())
    def check(changes, is_inter):
        if not is_inter:
            (folder / "tiny.item").write_bytes(mutated(item, changes))
            with contextlib.suppress(ValueError):
                content = ItemContent.read(folder / "tiny.item", ["[PAD]", *(f"i{number}" for number in range(8))], ["title", "genre"], modalities=["text"])
                assert len(content) == 9 and len(content.fingerprints()) == 9
            return
        (folder / "tiny.inter").write_bytes(mutated(inter, changes))
        try:
            prepared = prepare(Config(config_dict=given_values))
        except ValueError as error:
            assert len(str(error)) < 1500
            return
        assert np.isfinite(prepared.dataset.sorted_times).all()
        for loader in prepared.loaders:
            next(iter(loader))

    return check


def target_pictures_of_items(work):
    """Manifest, links, `.item` and dataset.yaml, as the command images reads them."""
    from dataset_converters.__main__ import main
    from dataset_converters.manifest import Manifest

    manifest = b"".join(json.dumps(line).encode() + b"\n" for line in (
        {"id": "1", "status": "stored", "source": "1.jpg", "bytes": 5, "sha256": "x", "size": [3, 3]},
        {"id": "2", "status": "failed", "source": "2.jpg", "cause": "x"},
        {"id": "../x", "status": "stored", "source": "../x.jpg"}))  # fmt: skip
    files = {
        "data/made/images/manifest.jsonl": manifest, "data/made/made.item": b"item_id:token\ttitle:token_seq\n1\ta\n2\tb\n3\tc\n../x\td\n",
        "map.csv": b"item_id,file\n1,a.png\n2,b.png\n3,../../../etc/passwd\n", "data/made/dataset.yaml": b"item_modalities: [text]\nitem_text_escaped: True\n",
        "from/a.png": picture_seeds()[2], "from/b.png": picture_seeds()[0],
    }  # fmt: skip

    @given(st.sampled_from(sorted(files)), edits, st.booleans())
    def check(name, changes, retry):
        root = work / "root"
        shutil.rmtree(root, ignore_errors=True)
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(mutated(content, changes) if path == name else content)
        said, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
            code = main(["images", "--dataset=made", f"--data-path={root / 'data'}", f"--from={root / 'from'}", f"--mapping={root / 'map.csv'}",
                         *(["--retry-failed"] if retry else [])])  # fmt: skip
        assert code in (0, 1, 2) and "Traceback" not in errors.getvalue(), errors.getvalue()
        made = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - set(files)
        assert all(path.startswith("data/made/images/") and path.endswith(".jpg") for path in made), made
        with Manifest(root / "data" / "made" / "images") as again:
            assert all(isinstance(entry, dict) for entry in again.entries.values())

    return check


def target_addresses(work):
    import ipaddress

    from dataset_converters.address import is_public
    from dataset_converters.causes import Refused
    from dataset_converters.fetch import join, parse, retry_after, unpacker

    urls = [b"http://example.com/a.jpg", b"//host/x?y#z", b"https://[::1]:80/", b"http://user:pw@127.0.0.1:8080/%zz", b"http://xn--a/", "http://é.example/ü".encode()]
    characters = st.one_of(st.text(max_size=30), st.text(string.printable, max_size=30))

    @given(st.sampled_from(urls), edits, characters, st.integers(0, 2**128 - 1), st.binary(max_size=60))
    def check(url, changes, text, number, body):
        for given_url in (mutated(url, changes).decode("utf-8", "surrogateescape"), text):
            with contextlib.suppress(Refused):
                target = parse(given_url)
                assert target.scheme in ("http", "https") and target.host
                with contextlib.suppress(Refused):
                    parse(join(target, text))
        seconds = retry_after(text)
        assert seconds is None or seconds >= 0
        for address in (ipaddress.IPv6Address(number), ipaddress.IPv4Address(number % 2**32)):
            if is_public(str(address)):
                assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
        with contextlib.suppress(Refused):
            unpack = unpacker(text if len(text) < 3 else "gzip")
            assert len(unpack(body, 100)) <= 100 or text.strip().lower() in ("", "identity")

    return check


def target_run_files(work):
    from recbole_molar.checkpoint import read_json
    from recbole_molar.doctor.comparison import finished_run
    from recbole_molar.quick_start import configure
    from recbole_molar.config import Config
    from recbole_molar.run_folder import RunFolder
    from recbole_molar.stages import weights_file

    run = work / "run" / "tiny" / "SASRec-1"
    run.mkdir(parents=True)
    write_inter(work / "data" / "tiny", tiny_interactions())
    config = Config(config_dict={"model": "SASRec", "dataset": "tiny", "data_path": str(work / "data"), "use_cpu": True})
    result = {"model": "SASRec", "test_result": {"ndcg@10": 0.1}, "stage_1": {"weights": "x.safetensors"}, "seconds": {}, "peak_memory": {"cpu": 1}}
    files = {"config.yaml": yaml.safe_dump(config.as_yaml()).encode(), "result.json": json.dumps(result).encode(), "seconds.json": b'{"SASRec": 1.5}'}

    @given(st.sampled_from(sorted(files)), edits)
    def check(name, changes):
        for file, content in files.items():
            (run / file).write_bytes(mutated(content, changes) if file == name else content)
        reads = (lambda: configure({"resume": str(run)}), lambda: finished_run(run), lambda: weights_file(run), lambda: RunFolder(run),
                 lambda: read_json(run / "result.json", "model"))  # fmt: skip
        for read in reads:
            with contextlib.suppress(ValueError):
                read()

    return check


TARGETS = {name.removeprefix("target_"): function for name, function in list(globals().items()) if name.startswith("target_")}


# ------------------------------------------------------------------------ run


def limited(check, name):
    """The property with a counter and the time limit around its body."""

    @functools.wraps(check)
    def body(*arguments, **keywords):
        counts[name] += 1
        with time_limit():
            check(*arguments, **keywords)

    return body


def record(name, error):
    place = traceback.extract_tb(error.__traceback__)[-1]
    key = (name, type(error).__name__, place.filename.rpartition("/")[2], place.lineno)
    if key in findings:
        return
    findings[key] = 1
    print(f"\n### {name}: {type(error).__name__}: {str(error)[:400]}")
    print("    " + "; ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-SHOWN:]))
    for note in getattr(error, "__notes__", []):
        print("    " + note[:600].replace("\n", "\n    "))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--targets", nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    os.environ["TQDM_DISABLE"] = "1"
    options = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate, Phase.shrink], "print_blob": False}
    rounds = 0
    with tempfile.TemporaryDirectory() as folder:
        checks = {}
        for name in arguments.targets:
            (Path(folder) / name).mkdir()
            strategies, function = TARGETS[name](Path(folder) / name)
            checks[name] = strategies, limited(function, name)
        start = time.time()
        while time.time() - start < 60 * arguments.minutes:
            for name, (strategies, function) in checks.items():
                began, examples = time.time(), 5 if not counts[name] else max(5, min(1000, int(SLICE * counts[name] / spent[name])))
                try:
                    settings(max_examples=examples, **options)(seed(1000 * arguments.seed + rounds)(hypothesis.given(*strategies)(function)))()
                except (Exception, Hang) as error:  # hypothesis has shrunk it
                    for one in getattr(error, "exceptions", [error]):
                        record(name, one)
                spent[name] += time.time() - began
                if time.time() - start > 60 * arguments.minutes:
                    break
            rounds += 1
    print(f"\n{rounds} rounds, {(time.time() - start) / 60:.1f} minutes, {sum(counts.values()):,} executions, {len(findings)} findings")
    for name, number in counts.most_common():
        print(f"  {name:20} {number:8,} executions, {spent[name]:6.0f} s, {sum(key[0] == name for key in findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
