"""RecBole's sequential data set with a stable time order, and one training row for many targets (all positions)."""

import csv
import hashlib
import math
import os
import shutil
import tempfile
import uuid
import zipfile
from collections import Counter
from logging import getLogger
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.atomic_file import AtomicFile
from recbole_molar.lock import take_lock
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource
from recbole.utils.url import decide_download, download_url, extract_zip, rename_atomic_files

# Column of every row: index of the row's target among the interactions sorted by user and time.
TARGET_INDEX = "target_index"
# Column of training rows of many targets: the first position whose next item is one; what stands before it is a history to read.
FIRST_TARGET = "first_target"
# Values of :meth:`HistoryDataset.time_gaps`.
TIME_GAPS = 64
# RecBole's transform that hides items of a row, which are then the targets (BERT4Rec).
MASKED = "mask_itemseq"


def count_targets(rows, length_field):
    """Targets of training rows that have many: items of their histories that are followed by one. `rows` is an Interaction, `length_field` its column."""
    return int((rows[length_field] - rows[FIRST_TARGET]).sum())


def padded_rows(values, starts, lengths, width):
    """Cut windows out of a flat array.

    Args:
        values (Tensor [M]): flat values; starts, lengths (ndarray [R]): windows; width (int): columns of the result.

    Returns:
        Tensor [R, width]: each window from the left, zeros on the right.
    """
    columns = np.arange(width)
    index = np.minimum(starts[:, None] + columns, len(values) - 1)
    inside = torch.from_numpy(columns < lengths[:, None])
    return torch.where(inside, values[torch.from_numpy(index)], torch.zeros((), dtype=values.dtype))


class HistoryDataset(SequentialDataset):
    """RecBole's `SequentialDataset`, with three differences.

    1. Interactions are sorted once, stably, by user and float64 time; ties keep the order of the file. (RecBole rounds
       timestamps to float32 first and sorts several times.)
    2. With `all_positions`, a training row is a window of at most `MAX_ITEM_LIST_LENGTH` items and each of its positions
       has a target: `item_seq` rolled left, with the row's `item_id` last. Without it, rows are RecBole's prefixes.
    3. A missing file or column is an error that says what to do.

    Validation and test rows are RecBole's in both cases.

    Args:
        config (Config): the run's.
        all_positions (bool): see above. Needs leave-one-out.
    """

    def __init__(self, config, all_positions):
        self.all_positions = all_positions
        self.is_training_part = False
        self.held_out = {"valid_and_test": 2, "valid_only": 1, "test_only": 1}.get(config["eval_args"]["split"].get("LS"), 0)
        if config["benchmark_filename"] is not None:
            raise ValueError("benchmark_filename: files that are split already are not supported; give one .inter file, which is split by eval_args.")
        if all_positions and not self.held_out:
            raise ValueError(f"eval_args.split={config['eval_args']['split']}: training on all positions needs leave-one-out, {{LS: valid_and_test}}.")
        super().__init__(config)

    # ------------------------------------------------------------------ files

    def _load_data(self, token, dataset_path):
        folder, inter = Path(dataset_path), Path(dataset_path) / f"{token}.inter"
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: is a file; data_path must be the folder that holds the folder {token}/.")
        if folder.is_dir() and not inter.is_file():
            raise ValueError(f"{inter}: missing. Put the interactions there (RecBole's atomic file, tab-separated), or set --data_path.")
        if inter.is_file():
            self._check_header(inter)
        super()._load_data(token, dataset_path)

    def _check_header(self, inter):
        types = AtomicFile(inter, self.config["field_separator"], self.config["encoding"]).types()
        loaded = (self.config["load_col"] or {}).get("inter", list(types))
        unloaded = (self.config["unload_col"] or {}).get("inter") or []
        for key, field in (("USER_ID_FIELD", self.uid_field), ("ITEM_ID_FIELD", self.iid_field), ("TIME_FIELD", self.time_field)):
            if field not in types:
                raise ValueError(f"{inter}: has no column {field} ({key}). Columns: {', '.join(types)}. Rename it, or set --{key}.")
            if field not in (loaded if isinstance(loaded, list) else types):
                raise ValueError(f"load_col: the columns {loaded} of {inter.name} lack {field} ({key}). Add it: --load_col={{inter: [{', '.join(types)}]}}.")
            if field in unloaded:
                raise ValueError(f"unload_col: names {field} ({key}) of {inter.name}, which every run needs. Leave it out.")
        for field in (self.uid_field, self.iid_field):
            if types[field] != "token":
                raise ValueError(f"{inter}: column {field} is of type {types[field]}; an id is a word, {field}:token.")
        for field in self.config["val_interval"] or {}:
            if field in types and isinstance(loaded, list) and field not in loaded:
                raise ValueError(f"val_interval: {field} is not loaded. Add it: --load_col={{inter: [{', '.join([*loaded, field])}]}}.")
        if unloaded and self.config["load_col"] is not None:
            raise ValueError(f"unload_col: load_col names what is loaded, inter: {loaded}; RecBole takes one of the two. Set --load_col, or also --load_col=~.")
        if types[self.time_field] != "float":
            raise ValueError(f"{inter}: column {self.time_field} is of type {types[self.time_field]}; a time must be a number, {self.time_field}:float.")

    def _load_feat(self, filepath, source):
        """RecBole's reader, with errors that name the file and the row.

        A time that is missing is one (RecBole would put the mean there), and so is an id (RecBole drops rows by their number after it has dropped
        others, and then takes wrong ones).
        """
        file = AtomicFile(filepath, self.config["field_separator"], self.config["encoding"])
        try:
            feat = super()._load_feat(filepath, source)
        except (ValueError, pd.errors.ParserError, csv.Error, LookupError) as error:
            raise ValueError(f"{filepath}{file.bad_number()}: cannot be read as an atomic file ({str(error).strip()[:300]}).") from error
        if feat is not None and source == FeatureSource.INTERACTION:
            file.check_rows(len(feat), [self.uid_field, self.iid_field, self.time_field])
            for field in (self.uid_field, self.iid_field):
                if len(bad := np.flatnonzero(feat[field].isna())):
                    raise ValueError(
                        f"{filepath}, row {bad[0] + 1}: no {field}. {len(bad):,} such rows: the cell is empty, or holds a word that RecBole reads as missing "
                        f"(NA, null, None, nan and the like). Remove the row, or give the id another name."
                    )
            bad = np.flatnonzero(~np.isfinite(feat[self.time_field].to_numpy()))
            if len(bad):
                value = feat[self.time_field].iloc[bad[0]]
                raise ValueError(f"{filepath}, row {bad[0] + 1}: {self.time_field} is {value}; a time must be a number. {len(bad):,} such rows.")
        return feat

    def _download(self):
        """RecBole's download, with an error that helps, and a lock in the place of its barrier: one process downloads, the others find the folder whole."""
        folder = Path(self.dataset_path)
        inter = folder / f"{self.dataset_name}.inter"
        try:
            url = self._get_download_url("url")
        except ValueError as error:
            raise ValueError(f"{inter}: missing, and {self.dataset_name} is no data set that RecBole offers. Set --dataset and --data_path.") from error
        getLogger().info("%s is not there; downloading RecBole's copy from %s", folder, url)
        try:
            if not decide_download(url):
                raise ValueError(f"{inter}: the download was declined.")
            with take_lock(Path(tempfile.gettempdir()) / f"recbole_molar-{os.getuid()}" / self.dataset_name):
                if not inter.is_file():
                    _fetch(url, folder, self.dataset_name)
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:  # URLError is an OSError
            raise ValueError(
                f"{inter}: missing, and {url} cannot be reached ({error}). With a network, run again; without one, "
                f"copy {self.dataset_name}.inter (and {self.dataset_name}.item) to {folder}, or set --data_path to the folder that holds {self.dataset_name}/."
            ) from error

    def _remove_duplication(self):
        keep = self.config["rm_dup_inter"]
        if keep is not None and self.time_field in self.inter_feat:
            order = np.argsort(self.inter_feat[self.time_field].to_numpy(), kind="stable")
            self.inter_feat = self.inter_feat.iloc[order].drop_duplicates(subset=[self.uid_field, self.iid_field], keep=keep)
        else:
            super()._remove_duplication()

    def _reset_index(self):
        if len(self.inter_feat) == 0:
            keys = "user_inter_num_interval, item_inter_num_interval, val_interval"
            raise ValueError(f"{self.dataset_name}: no interaction is left after the filter; see {keys}, or the file holds none.")
        super()._reset_index()

    # ------------------------------------------------------------------- rows

    def _change_feat_format(self):
        order = np.lexsort((self.inter_feat[self.time_field].to_numpy(), self.inter_feat[self.uid_field].to_numpy()))
        self.inter_feat = self.inter_feat.iloc[order].reset_index(drop=True)
        self.sorted_times = self.inter_feat[self.time_field].to_numpy()  # [M], float64
        super()._change_feat_format()

    def sort(self, by, ascending=True):
        """Rows are in their final order once built: RecBole's later sorts by rounded times must not move them."""
        if not isinstance(self.inter_feat, Interaction):
            super().sort(by, ascending)
        elif by == self.time_field and not self.held_out:  # a split by ratio may go through all users' rows together
            self.inter_feat = self.inter_feat[torch.from_numpy(np.argsort(self.sorted_times[self.inter_feat[TARGET_INDEX].numpy()], kind="stable"))]

    def data_augmentation(self):
        """Make the rows of training, validation and test; see the class."""
        self._aug_presets()
        users = self.inter_feat[self.uid_field].numpy()
        self.sorted_items = self.inter_feat[self.iid_field].clone()  # [M], by user and time
        self.user_starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
        self.user_ends = np.r_[self.user_starts[1:], len(users)]
        self.user_ids = users[self.user_starts]  # a .user file may hold users without an interaction
        self.first_of_user = np.repeat(self.user_starts, self.user_ends - self.user_starts)  # [M]
        targets = self._window_targets() if self.all_positions else np.flatnonzero(np.arange(len(users)) > self.first_of_user)
        starts = np.maximum(self.first_of_user[targets], targets - self.max_item_list_len)
        self.inter_feat = self._gather_rows(starts, targets)
        if self.all_positions:
            first = np.where(starts > self.first_of_user[targets], targets - starts - self._stride(), 0)
            self.inter_feat.update(Interaction({FIRST_TARGET: torch.from_numpy(first)}))

    def _stride(self):
        """By how many items windows follow each other; where items are hidden to be guessed, all of a window are read."""
        width = self.max_item_list_len
        return math.ceil(width / 2) if self.config["train_windows"] == "overlap" and self.config["transform"] != MASKED else width

    def _window_targets(self):
        """Index of each row's last target: windows counted back from the last training item, then the held-out items."""
        width, stride = self.max_item_list_len, self._stride()
        held = self._n_held_out()
        last = self.user_ends - 1 - held
        n_targets = last - self.user_starts  # 0 for a user with one interaction
        n_windows = (n_targets > 0) + np.ceil(np.maximum(n_targets - width, 0) / stride).astype(np.int64)
        if self.config["train_windows"] == "last":
            n_windows = np.minimum(n_windows, 1)
        windows = np.repeat(last, n_windows) - stride * _countdown(n_windows)
        held_out = np.repeat(self.user_ends - 1, held) - _countdown(held)
        return np.sort(np.r_[windows, held_out])

    def _gather_rows(self, starts, targets):
        lengths = targets - starts
        columns = {self.item_list_length_field: torch.from_numpy(lengths), TARGET_INDEX: torch.from_numpy(targets)}
        for field in self.inter_feat:
            value = self.inter_feat[field]
            columns[field] = value[torch.from_numpy(targets)]
            if field != self.uid_field:
                if value.dim() != 1:
                    raise ValueError(f"{self.dataset_name}.inter, column {field}: a sequence column is not supported; leave it out of load_col.")
                list_field = getattr(self, f"{field}_list_field")
                columns[list_field] = padded_rows(value, starts, lengths, self.max_item_list_len)
        return Interaction(columns)

    def build(self):
        """RecBole's split; the first part knows that it is the training part."""
        parts = super().build()
        parts[0].is_training_part = True
        return parts

    def check_split(self, parts):
        """Raise ValueError if training, validation or test has no row."""
        if self.held_out == 1:
            raise ValueError(f"eval_args.split={self.config['eval_args']['split']}: a run needs both a validation and a test part: {{LS: valid_and_test}}.")
        for name, part in zip(("training", "validation", "test"), parts, strict=True):
            if len(part) == 0:
                longest = int((self.user_ends - self.user_starts).max())
                raise ValueError(
                    f"{self.dataset_name}: too few interactions, the {name} part is empty. Leave-one-out needs users with at least 4 "
                    f"interactions; the longest history has {longest}. Check the filters, or the data."
                )

    # ---------------------------------------------------- what others read off

    def train_histories(self):
        """Items of each user's training interactions, in order: list of int64 arrays. Held-out items are not in it.

        Raises:
            ValueError: a split by ratio or time, which no user's history tells.
        """
        if not self.held_out:
            raise ValueError(f"eval_args.split={self.config['eval_args']['split']}: training interactions are known for leave-one-out alone.")
        held = self._n_held_out()
        items = self.sorted_items.numpy()
        return [items[start:end] for start, end in zip(self.user_starts, self.user_ends - held, strict=True)]

    def train_items(self):
        """Items of all training interactions, int64 [M]."""
        return np.concatenate(self.train_histories())

    def item_popularity(self):
        """Training interactions of each item, Tensor [n_items] (0 for the padding)."""
        return torch.from_numpy(np.bincount(self.train_items(), minlength=self.item_num))

    def seen_before(self, target_index):
        """All items of a user before each target, beyond the window too.

        Args:
            target_index (Tensor [B]): column `target_index` of the rows.

        Returns:
            tuple of Tensors [S]: row in the batch, item.
        """
        targets = target_index.cpu().numpy()
        starts = self.first_of_user[targets]
        lengths = targets - starts
        rows = np.repeat(np.arange(len(targets)), lengths)
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return torch.from_numpy(rows), self.sorted_items[torch.from_numpy(np.repeat(starts, lengths) + offsets)]

    def time_gaps(self):
        """How long after the user's item before it each interaction came, by sorted_items: Tensor [M] of uint8, below TIME_GAPS.

        0 is a user's first, 1 the same time, then one step for each doubling, counted from the shortest time there is between two training interactions.
        """
        gaps = np.diff(self.sorted_times, prepend=0.0)
        gaps[self.user_starts] = 0.0
        later = gaps > 0
        in_training = np.arange(len(gaps)) < np.repeat(self.user_ends - self._n_held_out(), self.user_ends - self.user_starts)
        shortest = gaps[later & in_training].min(initial=np.inf)
        steps = 1 + later
        steps[later] += np.log2(np.maximum(gaps[later] / shortest, 1.0)).astype(np.int64)
        steps[self.user_starts] = 0
        return torch.from_numpy(np.minimum(steps, TIME_GAPS - 1).astype(np.uint8))

    def _n_held_out(self):
        """Interactions of each user that are in validation and test, [users]."""
        return np.clip(self.user_ends - self.user_starts - 2, 0, self.held_out)

    def split_hash(self):
        """Hex digest of who interacted with what in which order, and of what is held out. Equal for all models of one comparison."""
        digest = hashlib.sha256()
        for field in (self.uid_field, self.iid_field):
            digest.update("\n".join(map(str, self.field2id_token[field])).encode())
        for values in (self.sorted_items.numpy(), self.user_starts, np.array([self.held_out])):
            digest.update(np.ascontiguousarray(values, dtype=np.int64).tobytes())
        if not self.held_out:  # by ratio
            digest.update(str([self.config["eval_args"]["split"], self.config["eval_args"]["group_by"]]).encode())
        return digest.hexdigest()[:16]

    def counter(self, field):
        """RecBole's, counting every training interaction where a row has many targets."""
        if self.all_positions and self.is_training_part and field == self.iid_field:
            return Counter(self.train_items().tolist())
        if self.all_positions and self.is_training_part and field == self.uid_field:
            return Counter({int(user): len(history) for user, history in zip(self.user_ids, self.train_histories(), strict=True)})
        return super().counter(field)

    def inter_matrix(self, form="coo", value_field=None):
        """RecBole's, with every training interaction where a row has many targets."""
        if not (self.all_positions and self.is_training_part and value_field is None):
            return super().inter_matrix(form=form, value_field=value_field)
        histories = self.train_histories()
        users = torch.from_numpy(np.repeat(self.user_ids, [len(history) for history in histories]))
        interactions = {self.uid_field: users, self.iid_field: torch.from_numpy(np.concatenate(histories))}
        return self._create_sparse_matrix(Interaction(interactions), self.uid_field, self.iid_field, form)


def _fetch(url, folder, name):
    """Download one of RecBole's archives; one that is cut leaves no folder behind."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = download_url(url, temporary)
        extract_zip(archive, temporary)
        Path(archive).unlink()
        rename_atomic_files(temporary, Path(archive).stem, name)
        staged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        shutil.copytree(temporary, staged)
        staged.rename(folder)


def _countdown(counts):
    """[2, 3] -> [1, 0, 2, 1, 0]."""
    ends = np.cumsum(counts)
    return np.repeat(ends, counts) - 1 - np.arange(counts.sum())


class HistoryDataLoader(TrainDataLoader):
    """Training batches of windows, of similar lengths together.

    `train_batch_size` counts targets for RecBole's models, as in RecBole, and histories (rows) for models that say
    `trains_all_positions`, as the paper does. Negatives are drawn by the model, for all positions.
    """

    buckets = 8  # batches that are sorted by length together: little padding, and still a different mix each epoch

    def _set_neg_sample_args(self, config, dataset, dl_format, neg_sample_args):
        super()._set_neg_sample_args(config, dataset, dl_format, {**neg_sample_args, "distribution": "none"})

    def _init_batch_size_and_step(self):
        self.lengths = self._dataset.inter_feat[self._dataset.item_list_length_field]
        self.n_targets = count_targets(self._dataset.inter_feat, self._dataset.item_list_length_field)
        batch_size = self.config["train_batch_size"]
        if not getattr(self.config.model_class, "trains_all_positions", False):
            batch_size = max(1, round(batch_size * len(self._dataset) / self.n_targets))
        self.step = min(batch_size, len(self._dataset))
        self.set_batch_size(self.step)

    def __len__(self):
        return math.ceil(self.sample_size / self.step)

    def __iter__(self):
        order = torch.randperm(self.sample_size, generator=self.generator) if self.shuffle else torch.arange(self.sample_size)
        batches = []
        for group in order.split(self.step * self.buckets):
            group = group[self.lengths[group].argsort(stable=True)] if self.shuffle else group
            batches += group.split(self.step)
        for index in torch.randperm(len(batches), generator=self.generator) if self.shuffle else range(len(batches)):
            rows = self._dataset[batches[int(index)]]
            yield self.transform(self._dataset, self._with_target(rows) if self.config["transform"] == MASKED else rows)

    def _with_target(self, rows):
        """Windows whose target is one of their items, cut to the longest: where items are hidden to be guessed, every item of a history is one."""
        dataset = self._dataset
        list_field, length_field = f"{dataset.iid_field}{self.config['LIST_SUFFIX']}", dataset.item_list_length_field
        items, lengths = rows[list_field].clone(), rows[length_field].clone()
        full = lengths == items.size(1)  # its first item is the last one of the window before
        items[full] = items[full].roll(-1, dims=1)
        lengths[~full] += 1
        items[torch.arange(len(items)), lengths - 1] = rows[dataset.iid_field]
        rows.interaction.update({list_field: items[:, : int(lengths.max())], length_field: lengths})
        return rows
