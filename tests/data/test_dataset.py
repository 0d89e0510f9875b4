"""Rows of training, validation and test: equal to RecBole's where they should be, and right where RecBole's are not."""

import urllib.error
import urllib.request
from collections import Counter
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.data.dataset import SequentialDataset

from recbole_molar.config import Config
from recbole_molar.utils import create_dataset, data_preparation
from tiny_data import tiny_interactions, write_inter

USER, ITEM, SEQ, LENGTH = "user_id", "item_id", "item_id_list", "item_length"


def clean_interactions(seed=0):
    """Small whole-number times without ties within a user: float32 holds them, and any sort gives the same order."""
    rows = tiny_interactions(seed=seed)
    return [(user, item, index + 1) for index, (user, item, _) in enumerate(rows)]


@pytest.fixture
def load(flags):
    """Function: properties -> HistoryDataset, not yet built."""
    return lambda all_positions=True, **options: create_dataset(Config(config_dict=flags(**options)), all_positions)


def rows_of(part):
    """Rows of a part as a sorted list of (user, history, target)."""
    feat = part.inter_feat
    return sorted((int(u), tuple(s[:n].tolist()), int(i)) for u, s, n, i in zip(feat[USER], feat[SEQ], feat[LENGTH], feat[ITEM], strict=True))


def histories(rows):
    """user -> items by time; ties keep the order of the file."""
    found = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):
        found.setdefault(user, []).append(item)
    return found


# ------------------------------------------------------------------- prefixes


def test_prefix_rows_are_recboles(make_data, flags):
    make_data(clean_interactions())
    config = Config(config_dict=flags())
    ours, stock = create_dataset(config, all_positions=False).build(), SequentialDataset(config).build()
    assert [len(part) for part in ours] == [len(part) for part in stock]
    for own, other in zip(ours, stock, strict=True):
        assert set(own.inter_feat.columns) == {*other.inter_feat.columns, "target_index"}

        def in_order(feat):
            return np.lexsort((feat["timestamp"].numpy(), feat[USER].numpy()))

        left, right = in_order(own.inter_feat), in_order(other.inter_feat)
        for field in other.inter_feat.columns:
            a, b = own.inter_feat[field][torch.from_numpy(left)], other.inter_feat[field][torch.from_numpy(right)]
            assert a.dtype == b.dtype and torch.equal(a, b), field


@pytest.mark.parametrize("split", [{"RS": [0.8, 0.1, 0.1]}, {"TS": [0.8, 0.1, 0.1]}])
@pytest.mark.parametrize("group_by", ["user", "none"])
def test_splits_by_ratio_are_recboles(make_data, flags, split, group_by):
    if "TS" in split and version("recbole") == "1.2.0":
        pytest.skip("RecBole 1.2.0 has no TS split")
    rows = clean_interactions()
    times = np.random.default_rng(1).permutation(len(rows))  # users interleave in time
    order = sorted(range(len(rows)), key=lambda i: (rows[i][0], times[i]))
    make_data([(rows[i][0], rows[i][1], int(times[i])) for i in order])
    config = Config(config_dict=flags(eval_args={"split": split, "group_by": group_by}))
    ours, stock = create_dataset(config, all_positions=False).build(), SequentialDataset(config).build()
    assert [rows_of(part) for part in ours] == [rows_of(part) for part in stock]


# -------------------------------------------------------------------- windows


@pytest.mark.parametrize("width", [1, 3, 6, 50])
@pytest.mark.parametrize("windows", ["chunks", "overlap"])
def test_every_training_item_is_a_target_once(make_data, load, width, windows):
    rows = tiny_interactions()
    make_data(rows)
    dataset = load(MAX_ITEM_LIST_LENGTH=width, train_windows=windows)
    train = dataset.build()[0]
    tokens, targets = dataset.field2id_token, []
    for row in range(len(train)):
        ((user, history, last),) = rows_of(SimpleNamespace(inter_feat=train.inter_feat[[row]]))
        first, end = (int(train.inter_feat[name][row]) for name in ("first_target", "target_index"))
        targets += [(tokens[USER][user], tokens[ITEM][item]) for item in (*history[1 + first :], last)[: len(history) - first]]
        begins = end - len(history) == dataset.first_of_user[end]  # the window begins where the history does
        assert first == (0 if begins or windows == "chunks" else width // 2)
    expected = [(user, item) for user, items in histories(rows).items() for item in items[1 : max(2, len(items) - 2)]]
    assert Counter(targets) == Counter(expected)


def test_last_keeps_only_the_last_window(make_data, load):
    make_data()
    chunks, last = (rows_of(load(train_windows=windows, MAX_ITEM_LIST_LENGTH=3).build()[0]) for windows in ("chunks", "last"))
    assert len(chunks) > len(last) == len({row[0] for row in last}) == 39  # all users but the one with a single interaction
    assert set(last) < set(chunks)


def test_held_out_rows_are_recboles(make_data, load, flags):
    make_data(clean_interactions())
    stock = SequentialDataset(Config(config_dict=flags())).build()
    for own, other in zip(load().build()[1:], stock[1:], strict=True):
        assert rows_of(own) == rows_of(other) and len(own)


def test_users_with_few_interactions(make_data, load):
    rows = [("one", "i1", 1), ("two", "i1", 1), ("two", "i2", 2), ("three", "i1", 1), ("three", "i2", 2), ("three", "i3", 3)]
    rows += [("four", f"i{n}", n) for n in range(1, 5)] + [("many", f"i{n}", n) for n in range(1, 13)]
    make_data(rows)
    for all_positions in (True, False):
        dataset = load(all_positions)
        names = dataset.field2id_token
        train, valid, test = ([(names[USER][u], names[ITEM][i]) for u, _, i in rows_of(part)] for part in dataset.build())
        held = {("three", "i3"), ("four", "i4"), ("many", "i12")}
        assert set(test) == held and set(valid) == {("four", "i3"), ("many", "i11")}
        assert {row for row in train if row[0] != "many"} == {("two", "i2"), ("three", "i2"), ("four", "i2")}


# ----------------------------------------------------------------------- time


def test_time_order_is_exact_and_stable(make_data, load, flags):
    random = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{random.integers(30)}", 1_000_000_000 + step // 2) for user in range(20) for step in range(14)]  # pairs of ties, 1 s apart
    shuffled = [rows[i] for i in random.permutation(len(rows))]
    make_data(shuffled)
    expected = histories(shuffled)
    for all_positions in (True, False):
        dataset = load(all_positions)
        test = dataset.build()[2]
        tokens = dataset.field2id_token
        found = {tokens[USER][user]: [tokens[ITEM][i] for i in (*history, target)] for user, history, target in rows_of(test)}
        assert found == {user: items[-7:] for user, items in expected.items()}
    stock = SequentialDataset(Config(config_dict=flags()))
    found = {stock.field2id_token[USER][u]: stock.field2id_token[ITEM][i] for u, _, i in rows_of(stock.build()[2])}
    assert sum(found[user] != items[-1] for user, items in expected.items()) > 5  # float32: the trap that this data set avoids


@pytest.mark.parametrize("keep, expected", [("first", ["i1", "i2", "i3", "i4"]), ("last", ["i2", "i1", "i4", "i3"])])
def test_duplicates_are_removed_in_time_order(make_data, load, keep, expected):
    filler = [("u2", f"i{n}", n) for n in range(1, 13)]
    user = [("u1", "i1", 10), ("u1", "i2", 10), ("u1", "i1", 10), ("u1", "i3", 10), ("u1", "i4", 11), ("u1", "i3", 12)]
    make_data([*filler, *user])
    dataset = load(rm_dup_inter=keep)
    dataset.build()
    items = dataset.sorted_items[dataset.user_starts[1] : dataset.user_ends[1]]
    assert [dataset.field2id_token[ITEM][item] for item in items] == expected


# ----------------------------------------------------- what others read off it


def test_counts_are_those_of_all_training_interactions(make_data, load):
    rows = tiny_interactions()
    make_data(rows)
    dataset = load(MAX_ITEM_LIST_LENGTH=3)
    train = dataset.build()[0]
    training = {user: items[: max(2, len(items) - 2)] if len(items) > 1 else items for user, items in histories(rows).items()}
    by_item = Counter(item for items in training.values() for item in items)
    items, users = dataset.field2id_token[ITEM], dataset.field2id_token[USER]
    assert {items[i]: n for i, n in train.item_counter.items()} == by_item
    assert {users[u]: n for u, n in train.user_counter.items()} == {user: len(its) for user, its in training.items()}
    assert {items[i]: int(n) for i, n in enumerate(dataset.item_popularity()) if n} == by_item
    matrix = train.inter_matrix().tocoo()
    assert Counter(zip(matrix.row, matrix.col)) == Counter((list(users).index(u), list(items).index(i)) for u, its in training.items() for i in its)
    full = dataset.inter_matrix(form="csr")
    assert full.shape == (dataset.user_num, dataset.item_num)


def test_user_counts_where_a_user_file_holds_more_users(make_data, load):
    data = make_data()
    (data / "tiny" / "tiny.user").write_text("user_id:token\tage:token\n" + "".join(f"x{n}\t{n}\n" for n in range(3)) + "u3\t1\n")
    dataset = load(load_col={"user": ["user_id", "age"]}, filter_inter_by_user_or_item=False)
    train = dataset.build()[0]
    users = dataset.field2id_token[USER]
    assert {users[user] for user in train.user_counter} == {f"u{n}" for n in range(40)}
    assert {users[user] for user in train.inter_matrix().tocoo().row} == {f"u{n}" for n in range(40)}


def test_seen_before_reaches_beyond_the_window(make_data, load):
    make_data()
    dataset = load(MAX_ITEM_LIST_LENGTH=2)
    test = dataset.build()[2]
    rows, items = dataset.seen_before(test.inter_feat["target_index"])
    expected = histories(tiny_interactions())
    for row, user in enumerate(test.inter_feat[USER]):
        seen = [dataset.field2id_token[ITEM][i] for i in items[rows == row]]
        assert seen == expected[dataset.field2id_token[USER][user]][:-1]


def test_time_gaps_double_from_the_shortest_between_training_interactions(make_data, load):
    rows = [("a", "i1", 100.5), ("a", "i2", 100.5), ("a", "i3", 103.5), ("a", "i4", 103.6), ("a", "i5", 103.7)]
    rows += [("b", "i1", 1), ("b", "i2", 7), ("b", "i3", 1e9), ("b", "i4", 1e9), ("b", "i5", 2e9), ("c", "i1", 50)]
    make_data(rows)
    dataset = load(topk=[2], valid_metric="NDCG@2")
    dataset.build()
    assert dataset.time_gaps().tolist() == [0, 1, 2, 2, 2, 0, 3, 30, 1, 30, 0]  # the gaps of 0.1 are held out: the shortest is 3
    in_training = [0, 1, 2, 5, 6, 7, 10]
    make_data([row if place in in_training else (*row[:2], 3e9 + place / 4) for place, row in enumerate(rows)], name="held_out_later")
    later = load(dataset="held_out_later", topk=[2], valid_metric="NDCG@2")
    later.build()
    assert torch.equal(later.time_gaps()[in_training], dataset.time_gaps()[in_training]) and not torch.equal(later.time_gaps(), dataset.time_gaps())
    make_data([(user, item, 5) for user, item, _ in rows], name="at_once")
    dataset = load(dataset="at_once", topk=[2], valid_metric="NDCG@2")
    dataset.build()
    assert set(dataset.time_gaps().tolist()) == {0, 1}


def test_split_hash(make_data, load):
    rows = tiny_interactions()
    make_data(rows)

    def digest(**options):
        dataset = load(**options)
        dataset.build()
        return dataset.split_hash()

    first = digest()
    assert first == digest(all_positions=False) == digest(model="FPMC", all_positions=False) == digest(MAX_ITEM_LIST_LENGTH=3)
    assert first != digest(eval_args={"split": {"LS": "valid_only"}}) != digest(all_positions=False, eval_args={"split": {"RS": [8, 1, 1]}})
    make_data([*rows[:-1], (rows[-1][0], "i0" if rows[-1][1] != "i0" else "i1", rows[-1][2])])
    assert digest() != first


# --------------------------------------------------------------------- errors


def test_no_network(tmp_path, load, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(ValueError, match=r"ml-1m\.inter: missing, and .* cannot be reached .*no route.*copy ml-1m.inter .* --data_path"):
        load(dataset="ml-1m", data_path=str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_download_that_is_cut_leaves_nothing(tmp_path, load, monkeypatch):
    def broken_archive(url, folder):
        file = f"{folder}/ml-1m.zip"
        open(file, "wb").write(b"PK\x03\x04 cut")
        return file

    monkeypatch.setattr("recbole_molar.data.dataset.decide_download", lambda url: True)
    monkeypatch.setattr("recbole_molar.data.dataset.download_url", broken_archive)
    with pytest.raises(ValueError, match="ml-1m.inter: missing"):
        load(dataset="ml-1m", data_path=str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_download_unpacks_into_place(tmp_path, load, monkeypatch):
    import shutil

    def archive(url, folder):
        write_inter(tmp_path / "made" / "ml-1m", tiny_interactions())
        return shutil.make_archive(f"{folder}/ml-1m", "zip", tmp_path / "made" / "ml-1m")

    monkeypatch.setattr("recbole_molar.data.dataset.decide_download", lambda url: True)
    monkeypatch.setattr("recbole_molar.data.dataset.download_url", archive)
    assert len(load(dataset="ml-1m", data_path=str(tmp_path / "data")).inter_feat) == len(tiny_interactions())
    assert [file.name for file in (tmp_path / "data" / "ml-1m").iterdir()] == ["ml-1m.inter"]


def test_unknown_data_set(tmp_path, load):
    with pytest.raises(ValueError, match="mine.inter: missing, and mine is no data set that RecBole offers"):
        load(dataset="mine", data_path=str(tmp_path))


def test_missing_inter(make_data, load):
    (make_data() / "tiny" / "tiny.inter").unlink()
    with pytest.raises(ValueError, match="tiny.inter: missing. Put the interactions there"):
        load()


@pytest.mark.parametrize("header, message", [
    ("user_id\titem_id\ttimestamp", r"tiny.inter, line 1: found \['user_id', 'item_id', 'timestamp'\]; write name:type"),
    ("user_id:token\titem:token\ttimestamp:float", r"has no column item_id \(ITEM_ID_FIELD\). Columns: user_id, item, timestamp"),
    ("user_id:token\titem_id:token\twhen:float", r"has no column timestamp \(TIME_FIELD\)"),
    ("user_id:token\titem_id:token\ttimestamp:token", "column timestamp is of type token; a time must be a number"),
])
def test_bad_header(tmp_path, load, header, message):
    write_inter(tmp_path / "data" / "tiny", tiny_interactions(), header=header)
    with pytest.raises(ValueError, match=message):
        load()


def test_time_left_out_of_load_col(make_data, load):
    make_data()
    with pytest.raises(ValueError, match=r"load_col: the columns \['user_id', 'item_id'\] of tiny.inter lack timestamp"):
        load(load_col={"inter": ["user_id", "item_id"]})


def test_time_among_unload_col(make_data, load):
    make_data()
    with pytest.raises(ValueError, match="unload_col: names timestamp"):
        load(load_col=None, unload_col={"inter": ["timestamp"]})


@pytest.mark.parametrize("field, kind", [("user_id", "float"), ("item_id", "float"), ("item_id", "token_seq")])
def test_an_id_that_is_no_word(make_data, load, field, kind):
    file = make_data() / "tiny" / "tiny.inter"
    file.write_text(file.read_text().replace(f"{field}:token", f"{field}:{kind}"))
    with pytest.raises(ValueError, match=f"tiny.inter: column {field} is of type {kind}; an id is a word, {field}:token"):
        load()


def test_a_filter_by_a_column_that_is_not_loaded(make_data, load):
    file = make_data() / "tiny" / "tiny.inter"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([f"{head}\trating:float", *(f"{row}\t{place % 5}" for place, row in enumerate(rows))]) + "\n")
    columns = ["user_id", "item_id", "timestamp"]
    with pytest.raises(ValueError, match="val_interval: rating is not loaded. Add it: --load_col={inter: .user_id, item_id, timestamp, rating.}"):
        load(load_col={"inter": columns}, val_interval={"rating": "[3,inf)"})
    found = load(load_col={"inter": [*columns, "rating"]}, val_interval={"rating": "[3,inf)"})
    assert len(found.inter_feat) == sum(place % 5 >= 3 for place in range(len(rows)))
    with pytest.raises(ValueError, match="unload_col: load_col names what is loaded"):
        load(load_col={"inter": columns}, unload_col={"inter": ["rating"]})


@pytest.mark.parametrize("all_positions", [True, False])
def test_popular_candidates_are_drawn_by_training_interactions(make_data, flags, all_positions):
    """The rows differ by the way of training; what a ranking is held against may not."""
    make_data()
    config = Config(config_dict=flags(eval_args={"mode": "pop5"}, train_all_positions=all_positions))
    dataset = create_dataset(config, all_positions)
    for loader in data_preparation(config, dataset)[1:]:
        drawn = np.bincount(loader._sampler._get_candidates_list(), minlength=dataset.item_num)
        assert np.array_equal(drawn, dataset.item_popularity().numpy()) and drawn.sum() > 100


def test_empty_file(make_data, load):
    make_data([])
    with pytest.raises(ValueError, match="no interaction"):
        load().build()


def test_filter_that_leaves_nothing(make_data, load):
    make_data()
    with pytest.raises(ValueError, match="no interaction is left after the filter; see user_inter_num_interval"):
        load(user_inter_num_interval="[1000,inf)").build()


@pytest.mark.parametrize("length, part", [(1, "training"), (2, "validation"), (3, "validation")])
def test_too_few_interactions(make_data, flags, length, part):
    make_data([(f"u{user}", f"i{(user + n) % 12}", n) for user in range(12) for n in range(length)])
    config = Config(config_dict=flags())
    with pytest.raises(ValueError, match=f"too few interactions, the {part} part is empty.*the longest history has {length}"):
        data_preparation(config, create_dataset(config, True))


def test_split_without_test_part(make_data, flags):
    make_data()
    config = Config(config_dict=flags(eval_args={"split": {"LS": "valid_only"}}))
    with pytest.raises(ValueError, match="needs both a validation and a test part"):
        data_preparation(config, create_dataset(config, True))


def test_all_positions_need_leave_one_out(make_data, load):
    make_data()
    with pytest.raises(ValueError, match="needs leave-one-out"):
        load(eval_args={"split": {"RS": [8, 1, 1]}})


def test_more_topk_than_items(make_data, load):
    make_data(n_items=8)
    with pytest.raises(ValueError, match=r"topk=\[5, 10\]: tiny has 8 items"):
        load()


# --------------------------------------------------------------------- loader


def batches_of(flags, **options):
    config = Config(config_dict=flags(**options))
    return data_preparation(config, create_dataset(config, True))[0]


def test_batch_size_counts_targets_for_recboles_models_and_rows_for_ours(make_data, flags):
    make_data()
    targets = batches_of(flags, train_batch_size=40)
    sizes = [int(batch[LENGTH].sum()) for batch in targets]
    assert 25 < np.mean(sizes[:-1]) < 55 and len(sizes) == len(targets)
    rows = batches_of(flags, model="Popularity", train_batch_size=16)
    assert [len(batch) for batch in rows].count(16) >= len(rows) - 1 == len(rows._dataset) // 16


def test_each_row_once_an_epoch_and_the_same_order_for_a_seed(make_data, flags):
    make_data()
    loader, same, other = (batches_of(flags, seed=seed) for seed in (1, 1, 2))
    first, second = ([batch["target_index"].tolist() for batch in loader] for _ in range(2))
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == sorted(loader._dataset.inter_feat["target_index"].tolist())
    assert first != second
    assert [batch["target_index"].tolist() for batch in same] == first != [batch["target_index"].tolist() for batch in other]


@pytest.mark.parametrize("width", [3, 50])
def test_masked_histories_hold_every_training_item_once(make_data, flags, width):
    rows = tiny_interactions()
    make_data(rows)
    config = Config(config_dict=flags(model="BERT4Rec", MAX_ITEM_LIST_LENGTH=width, mask_ratio=0.9, ft_ratio=0))
    dataset = create_dataset(config, all_positions=True)
    found, masked = Counter(), 0
    for batch in data_preparation(config, dataset)[0]:
        items, lengths = batch[SEQ], batch[LENGTH]
        inside = torch.arange(items.size(1)) < lengths[:, None]
        assert lengths.max() == items.size(1) <= width and (items > 0).eq(inside).all()
        masked += int((batch["Mask_item_id_list"] == dataset.item_num).sum())
        for user, history, length in zip(batch[USER].tolist(), items.tolist(), lengths.tolist()):
            found[user] += length
            train = dataset.train_histories()[dataset.user_ids.tolist().index(user)].tolist()
            assert any(train[start : start + length] == history[:length] for start in range(len(train)))
    lengths = {user: len(train) for user, train in zip(dataset.user_ids.tolist(), dataset.train_histories()) if len(train) > 1}
    # a window is full of targets, so the first item of a history that fills its windows to the brim is in none
    assert found == {user: length - (length > 1 and (length - 1) % width == 0) for user, length in lengths.items()}
    assert masked > 0.7 * sum(found.values())


def test_a_quoted_line_break_outside_ids_is_one_cell(tmp_path, load):
    rows = [(user, item, time, '"good\nfilm"' if place == 3 else "x") for place, (user, item, time) in enumerate(tiny_interactions())]
    write_inter(tmp_path / "data" / "tiny", rows, header="user_id:token\titem_id:token\ttimestamp:float\treview:token")
    dataset = load()
    dataset.build()
    assert len(dataset.sorted_items) == len(rows)
