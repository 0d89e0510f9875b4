"""Text is the same from the raw file to the prompt that MIRM reads: through the converter, `.item`, RecBole's loading and the tokenizer."""

import csv
import json

import pytest
from raw_layouts import HOSTILE, write_lines

TEXTS = [
    HOSTILE, '"', '""', '"quoted"', "it's", "'", "a,b;c|d::e", "tab\tand\ttab", "line\nline", "a\rb", "a\r\nb", "\n", "\t",
    "\\", "\\\\", "\\n", "\\t\\r", "C:\\new\\table", "ends in \\", "Ünïcödé", "e\u0301 is not \u00e9", "A\u030a \u212b", "日本語テキスト", "한국어",
    "עברית", "العربية ١٢٣", "हिन्दी", "ไทย", "🎬👩‍👩‍👧🏳️‍🌈", "𝕏 𝒜", "zero\u200bwidth", "\ufeffmark", "in\ufeffside",
    "line\u2028paragraph\u2029next\u0085end", "\x0b\x0c\x1c\x1f", "\x7f",
    "NaN", "nan", "NA", "N/A", "null", "None", "True", "inf", "-", "0", "007", "1.50", "1e5", "1,000", "2020-01-02",
    " leading", "trailing ", "  both  ", " ", "\u00a0", "<b>&amp; &lt;</b>", "<|image_pad|>[Cur_Item]<|endoftext|>", "%41 %0A", "=1+1",
    "{'asin': 'B1'}", '{"asin": "B1"}', "# no comment", "x" * 20_000, "long, \"quoted\"\n" * 2_000,
]  # fmt: skip
PLACES = range(len(TEXTS))


def clicks():
    """(user, item, time): each user has four items, in a chain."""
    return [(f"u{user}", f"i{(user + step) % len(TEXTS)}", 1_600_000_000 + step) for user in PLACES for step in range(4)]


@pytest.fixture
def prompts(flags, out):
    """Function: name of a converted data set -> (text fields of the content, prompt as text), by item id."""

    def call(dataset="made"):
        from recbole_molar.config import Config
        from recbole_molar.quick_start import prepare, read_content
        from recbole_molar.stages import build_mirm
        from test_molar_runs import SMALL

        config = Config(config_dict=flags(**{**SMALL, "data_path": str(out), "dataset": dataset, "mirm_max_tokens": 100_000, "mirm_image_size": [28, 28]}))
        content = read_content(config, prepare(config).dataset)
        collator = build_mirm(config, content).collator
        decode = collator.prompt.tokenizer.decode
        return {
            item.id: (item.fields, decode(collator.tokens(place)[0], clean_up_tokenization_spaces=False))
            for place, item in enumerate(content.items) if place
        }  # fmt: skip

    return call


def check(found, column, texts=TEXTS):
    """Every text stands in its item's content and, to the end of the line before the next thing, in its prompt."""
    assert len(found) == len(texts)
    for place, text in enumerate(texts):
        fields, prompt = found[f"i{place}"]
        assert fields.get(column) == text and f"\n{column}: {text}\n" in prompt


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_tabular(tmp_path, convert, prompts, form):
    header, rows = ["item_id", "text", "number"], [(f"i{place}", TEXTS[place], place) for place in PLACES]
    write_lines(tmp_path / "x.csv", ["user_id,item_id,timestamp", *(",".join(map(str, row)) for row in clicks())])
    file = tmp_path / f"items.{form}"
    if form == "parquet":
        pa = pytest.importorskip("pyarrow", reason="reads Parquet only where pyarrow is installed")
        from pyarrow import parquet

        parquet.write_table(pa.table(dict(zip(header, map(list, zip(*rows))))), file)
    elif form == "jsonl":
        write_lines(file, [json.dumps(dict(zip(header, row)), ensure_ascii=row[2] % 2 == 0) for row in rows])
    else:
        with open(file, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, delimiter="," if form == "csv" else "\t", quoting=csv.QUOTE_ALL).writerows([header, *rows])
    convert("tabular", tmp_path / "x.csv", "--items", file)
    check(prompts(), "text")


@pytest.mark.parametrize("release", ["2014", "2018", "2023"])
def test_amazon(tmp_path, convert, prompts, release):
    raw = tmp_path / "raw"
    raw.mkdir()
    if release == "2023":
        reviews = [{"user_id": user, "parent_asin": item, "rating": 5.0, "timestamp": when * 1000} for user, item, when in clicks()]
        items = [{"parent_asin": f"i{place}", "title": TEXTS[place], "description": [TEXTS[place]]} for place in PLACES]
    else:
        reviews = [{"reviewerID": user, "asin": item, "overall": 5.0, "unixReviewTime": when} for user, item, when in clicks()]
        items = [{"asin": f"i{place}", "title": TEXTS[place], "description": TEXTS[place] if release == "2014" else [TEXTS[place]]} for place in PLACES]
    write_lines(raw / "X.json.gz", list(map(json.dumps, reviews)))
    write_lines(raw / "meta_X.json.gz", [repr(row) if release == "2014" else json.dumps(row, ensure_ascii=False) for row in items])
    convert("amazon", raw)
    found = prompts()
    check(found, "title")
    check(found, "description")


def test_item_files(tmp_path, convert, prompts):
    """Plots beside a MovieLens release, joined by movie id."""
    root = tmp_path / "ml-1m"
    root.mkdir()
    write_lines(root / "ratings.dat", [f"{user}::{item}::5::{when}" for user, item, when in clicks()])
    write_lines(root / "movies.dat", [f"i{place}::Film {place} (1999)::Drama" for place in PLACES])
    with open(tmp_path / "plots.csv", "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["movieId", "plot"], *((f"i{place}", TEXTS[place]) for place in PLACES)])
    convert("movielens", root, "--item-files", tmp_path / "plots.csv")
    check(prompts(), "plot")
