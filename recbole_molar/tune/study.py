"""The study of `tune`: Optuna's, in SQLite, for several processes at once; what a dead process left is taken over."""

import random
import warnings

import optuna
from optuna.trial import Trial, TrialState

from recbole_molar.lock import take_lock

SAMPLERS = ("tpe", "grid", "random")
MOST_STARTS = 3  # of one trial: a process that dies of it each time must not hold up the study
UNPRUNED_TRIALS, UNPRUNED_SHARE = 5, 0.25  # first trials, and first share of the epochs, that are never pruned


class TuningStudy:
    """Hands out trials and keeps what came of them.

    Args:
        folder (Path): `<output_dir>/<dataset>/tune-<model>-<hash>`.
        space (Space); config (Config): all properties as they stand without the space.
        sampler (str): `tpe`, `grid` or `random`. pruning (bool): whether trials that fall behind are ended early.
    """

    def __init__(self, folder, space, config, sampler, pruning):
        self.folder, self.space, self.config, self.sampler = folder, space, config, sampler
        self.values, self.seed, self.metric = config.final_config_dict, config["seed"], config["valid_metric"].lower()
        self.grid = space.grid(self.values) if sampler == "grid" else None
        if self.grid:
            random.Random(self.seed).shuffle(self.grid)  # so that fewer trials than points are spread over it
        warnings.filterwarnings("ignore", module="optuna")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        median = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=max(1, round(UNPRUNED_SHARE * config["epochs"])))
        with self.locked():
            self.study = optuna.create_study(
                storage=optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}}),
                study_name="tune", direction="maximize" if config["valid_metric_bigger"] else "minimize", load_if_exists=True,
                pruner=median if pruning else optuna.pruners.NopPruner(),
            )
            stored, self.outside = space.defaults(self.values)
            if not self.study.trials and not self.grid and not self.outside:
                self.study.enqueue_trial(stored)

    def locked(self):
        """No other process hands out a trial, or ends the study, while this is held."""
        return take_lock(self.folder / "locks" / "study")

    def _own(self, number, wait=True):
        return take_lock(self.folder / "locks" / f"trial-{number}", wait)

    def next_trial(self, most):
        """A trial to carry out: one that a dead process left, or a new one while there are fewer than `most`.

        Returns:
            (Trial, its values, its lock, to be closed when it is done), or None.
        """
        with self.locked():
            for frozen in self.trials(TrialState.RUNNING):
                lock = self._own(frozen.number, wait=False)
                if lock and frozen.user_attrs.get("starts", 1) < MOST_STARTS:
                    return self._start(Trial(self.study, frozen._trial_id), lock)
                if lock:
                    self.finish(Trial(self.study, frozen._trial_id), TrialState.FAIL, reason=f"its process died {MOST_STARTS} times")
                    lock.close()
            waiting = len(self.trials(TrialState.WAITING))
            begun = len(self.trials()) - waiting
            if begun >= min(most, len(self.grid) if self.grid else most):
                return None
            if self.grid and not waiting:
                self.study.enqueue_trial(self.grid[begun])
            # a new seed for each trial: processes must not draw the same, and a study that was cut must go on as if it had not been
            kind = optuna.samplers.TPESampler if self.sampler == "tpe" else optuna.samplers.RandomSampler
            self.study.sampler = kind(seed=self.seed + begun)
            trial = self.study.ask()
            return self._start(trial, self._own(trial.number))

    def _start(self, trial, lock):
        chosen = self.space.suggest(trial, self.values)
        trial.set_user_attr("starts", trial.user_attrs.get("starts", 0) + 1)
        return trial, chosen, lock

    def finish(self, trial, state, value=None, **notes):
        """Write down how a trial ended."""
        for key, note in notes.items():
            trial.set_user_attr(key, note)
        self.study.tell(trial, value, state=state)

    def check_split(self, split_hash):
        """Raise ValueError where a trial was measured on another split than the first one."""
        first = self.study.user_attrs.get("split_hash")
        if first is None:
            self.study.set_user_attr("split_hash", split_hash)
        elif first != split_hash:
            raise ValueError(f"its split ({split_hash}) is not that of the other trials ({first}), so it cannot be compared; has the data changed?")

    def trials(self, *states):
        """Trials in any of these states, or all; the completed ones alone come best first."""
        found = self.study.get_trials(deepcopy=False, states=states or None)
        if states != (TrialState.COMPLETE,):
            return found
        sign = -1 if self.config["valid_metric_bigger"] else 1
        return sorted(found, key=lambda trial: (sign * trial.value, trial.number))

    def reported(self, number):
        """Epochs (from 0) of a trial that the study knows."""
        return set(self.trials()[number].intermediate_values)

    def values_of(self, trial):
        """Property -> value of a finished trial."""
        by_key = {dimension.key: dimension for dimension in self.space.dimensions}
        return {key: by_key[key].value(stored) for key, stored in trial.params.items()}
