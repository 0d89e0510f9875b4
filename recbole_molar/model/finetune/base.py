"""What the three fine-tuning tasks of MIRM's stage 1 have in common: each makes samples of "read these items, write this text"."""

from dataclasses import dataclass

from recbole_molar.data.prompt import TASKS


@dataclass(frozen=True, slots=True)
class Sample:
    """Items to read, the text to generate, and for user behaviour the item that the text names.

    `parts` limits what is read of the items, see `ItemCollator.tokens`; `target` is an internal id, 0 for none.
    """

    items: tuple
    answer: str
    parts: str | None = None
    target: int = 0


class FinetuneTask:
    """Base of the tasks. `name` is the word used in `mirm_finetune_tasks`: the file's name."""

    name = ""
    reads_items_alone = False  # True: no sample depends on train_histories, so that weights tuned on it serve any split

    @property
    def instruction(self):
        """What the model is told to write."""
        return TASKS[self.name]

    def samples(self, content, images, train_histories, count, rng):
        """Draw samples.

        Args:
            content (ItemContent): the items.
            images (ImageStore): their pixels.
            train_histories (list): for each user the internal ids of the training interactions, in time order; nothing else is
                known of users here.
            count (int): most samples wanted; none is repeated.
            rng (np.random.Generator): all randomness.

        Returns:
            list: of :class:`Sample`.

        Raises:
            Unbuildable: this data set has nothing for the task; the message says what is missing.
        """
        raise NotImplementedError


class Unbuildable(Exception):
    """A task has no samples in this data set; the run goes on without it."""


def draw(candidates, count, rng):
    """At most `count` of the candidates, in random order."""
    return [candidates[place] for place in rng.permutation(len(candidates))[:count]]


def attributes_sentence(item, content):
    """Title and attributes as one sentence: `Toy Story: release year 1995, genre Animation.`; empty where there is neither."""
    words = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in item.fields.items()
        if value != item.title and name != content.description_field
    ]
    known = [part for part in (item.title, ", ".join(words)) if part]
    return f"{': '.join(known)}." if known else ""
