"""UB, user behaviour: read the items of a history, write the next item. Made of training interactions only."""

import numpy as np

from recbole_molar.model.finetune.base import FinetuneTask, Sample, Unbuildable, attributes_sentence


class UserBehavior(FinetuneTask):
    """Up to `history_length` items of a user -> the item that came next.

    Args:
        history_length (int): items read; each costs a pass through the MLLM.
    """

    name = "user_behavior"

    def __init__(self, history_length=3):
        self.history_length = history_length

    def samples(self, content, images, train_histories, count, rng):
        """See :meth:`FinetuneTask.samples`; each (user, position) is drawn at most once."""
        steps = np.array([max(len(history) - 1, 0) for history in train_histories])
        if steps.sum() == 0:
            raise Unbuildable("no user has two training interactions")
        ends = steps.cumsum()
        made = []
        for place in rng.choice(ends[-1], size=min(count, ends[-1]), replace=False):
            user = int(np.searchsorted(ends, place, side="right"))
            position = int(place - (ends[user] - steps[user])) + 1
            history = train_histories[user]
            target = int(history[position])
            read = tuple(int(item) for item in history[max(0, position - self.history_length) : position])
            item = content.items[target]
            made.append(Sample(read, attributes_sentence(item, content) if item.fields else "", target=target))
        return made
