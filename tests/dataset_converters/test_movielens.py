"""Every release of MovieLens, folder and zip: values, titles, extra files, damaged input."""

import zipfile

import pytest
from raw_layouts import interactions, movielens, read_back, stars, write_csv, zipped

from dataset_converters.movielens import split_title

RELEASES = ["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest", "ml-latest-small"]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("release", RELEASES)
def test_release(tmp_path, convert, trains, out, release, packed):
    root = movielens(tmp_path, release)
    text = convert("movielens", zipped(root, release) if packed else root, dataset=None)
    assert "12 users, 6 items, 60 interactions. No row was left out. 0.00% of the rows repeat" in text
    inter, items, properties = read_back(out / release)
    expected = [{"user_id": str(u), "item_id": str(i), "rating": str(stars(release, r)), "timestamp": str(t)} for u, i, r, t in interactions()]
    assert inter == expected
    assert {key: row["movie_title"] for key, row in items.items()} == {
        "1": "Toy Story", "2": "The Matrix", "3": "The City of Lost Children (La Cité des enfants perdus)", "4": "L'Avventura",
        "5": "The American President (a.k.a. The President)", "6": "Amélie \"Poulain\", l'été",
    }  # fmt: skip
    assert [row["release_year"] for row in items.values()] == ["1995", "1999", "1995", "1960", "1995", "2001"]
    assert [row["genre"] for row in items.values()] == ["Animation Children's Comedy", "Action", "Sci-Fi", "Drama", "Comedy Drama", ""]
    if release == "ml-100k":
        assert items["2"]["imdb_url"] == "http://us.imdb.com/M/title-exact?2"
    elif release not in ("ml-1m", "ml-10m"):
        assert (items["3"]["imdb_id"], items["3"]["tmdb_id"], items["4"]["tmdb_id"]) == ("0114703", "863", "")
    assert "item_modalities: [text]" in properties and 'item_text_fields: ["movie_title", "release_year", "genre"]' in properties
    trains(text, "Molar" if (release, packed) == ("ml-25m", True) else "SASRec")


@pytest.mark.parametrize("raw, title, year", [
    ("Seven (a.k.a. Se7en) (1995)", "Seven (a.k.a. Se7en)", "1995"), ("Fawlty Towers (1975-1979)", "Fawlty Towers", "1975"),
    ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto", "2006"), ("Diplomatic Immunity (2009– )", "Diplomatic Immunity", "2009"),
    ("Babylon 5", "Babylon 5", ""), ("Good, the Bad and the Ugly, The (Buono, il brutto, il cattivo, Il) (1966)",
                                     "The Good, the Bad and the Ugly (Il Buono, il brutto, il cattivo)", "1966"),
    ("Vitelloni, I (1953)", "I Vitelloni", "1953"), ("1984 (1984) ", "1984", "1984"), ("Misérables, Les (1995)", "Les Misérables", "1995"),
    ("Beautiful Girl, A (a) (b, The) (2000)", "A Beautiful Girl (a) (The b)", "2000"), ("unknown", "unknown", ""), ("(500) Days (2009)", "(500) Days", "2009"),
])  # fmt: skip
def test_titles(raw, title, year):
    assert split_title(raw) == (title, year)


def test_extra_files(tmp_path, convert, out):
    root = movielens(tmp_path, "ml-1m")
    header = ["movieId", "plot", "poster_url", "genre"]
    write_csv(tmp_path / "plots.csv", header, [(1, "A boy,\n\"Andy\".", "http://x/1.jpg", "x"), (6, "Paris", "", "Romance")])
    (tmp_path / "more.jsonl").write_text('{"item_id": 2, "plot": "Neo", "actors": ["Keanu Reeves", "Carrie-Anne Moss"]}\n')
    convert("movielens", root, "--item-files", tmp_path / "plots.csv", tmp_path / "more.jsonl")
    _, items, properties = read_back(out / "made")
    assert items["1"]["plot"] == 'A boy,\n"Andy".' and items["1"]["poster_url"] == "http://x/1.jpg" and items["2"]["plot"] == "Neo"
    assert items["1"]["genre"] == "Animation Children's Comedy" and items["6"]["genre"] == "Romance"  # an empty cell is filled, a full one stays
    assert items["2"]["actors"] == "Keanu Reeves\nCarrie-Anne Moss" and items["3"]["actors"] == ""
    assert "item_description_field: plot" in properties and '"movie_title", "release_year", "genre", "plot", "actors"]' in properties


def test_damaged(tmp_path, refused):
    assert "no such file or folder" in refused("movielens", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    error = refused("movielens", tmp_path / "empty")
    assert "not a release" in error and "u.data" in error and "ratings.csv" in error and "Found: nothing" in error
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("x/readme.txt", "hello")
    assert "Found: readme.txt" in refused("movielens", tmp_path / "other.zip")
    (tmp_path / "no.zip").write_text("no zip")
    assert "neither a folder nor a zip" in refused("movielens", tmp_path / "no.zip")
    root = movielens(tmp_path, "ml-25m")
    packed = zipped(root)
    data = bytearray(packed.read_bytes())
    place = data.index(b"ml-25m/ratings.csv") + len("ml-25m/ratings.csv") + 20
    data[place : place + 8] = b"\xff" * 8
    packed.write_bytes(data)
    assert "ratings.csv: damaged or cut off" in refused("movielens", packed)
    (root / "ratings.csv").write_text("userId;movieId;rating;timestamp\n1;1;4.0;1\n")
    assert "the header must have userId, movieId, rating, timestamp" in refused("movielens", root)
    (root / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,1\n1,2,good,1\n")
    assert "ratings.csv, row 2: the rating is 'good', not a number" in refused("movielens", root)
    (root / "ratings.csv").write_text("")
    assert "ratings.csv: empty" in refused("movielens", root)
    root = movielens(tmp_path, "ml-1m")
    (root / "movies.dat").write_text("1::Toy Story\n")
    assert "movies.dat, line 1: '1::Toy Story' is not id::title::genres" in refused("movielens", root)
    (root / "ratings.dat").write_text("1,1,5,1\n")
    assert "ratings.dat" in refused("movielens", root)


def test_names_in_a_zip_never_leave_it(tmp_path, convert, out):
    root = movielens(tmp_path, "ml-1m")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for file in root.iterdir():
            archive.write(file, f"../../{file.name}")
    before = sorted(path for path in tmp_path.iterdir())
    convert("movielens", tmp_path / "evil.zip")
    assert sorted(path for path in tmp_path.iterdir()) == sorted([*before, out])


def test_two_releases(tmp_path, refused):
    """Not the ratings of one with the movies, or the name, of another."""
    for name in ("ml-1m", "ml-10m"):
        movielens(tmp_path / "raw", name)
    assert "raw: holds several releases, in ml-1m/, ml-10M100K/" in refused("movielens", tmp_path / "raw")


def test_an_extra_file_of_other_ids(tmp_path, refused):
    root = movielens(tmp_path, "ml-1m")
    write_csv(tmp_path / "plots.csv", ["movieId", "plot"], [("1.0", "A boy"), ("6.0", "Paris")])
    error = refused("movielens", root, "--item-files", tmp_path / "plots.csv")
    assert "plots.csv: shares no id with the items; its ids look like 1.0, 6.0, theirs like" in error
