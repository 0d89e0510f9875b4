"""What the report shows of items and users: titles, fields, pictures, popularity, histories."""

import zlib
from logging import getLogger

import numpy as np

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.config import Config
from recbole_molar.run_folder import CONFIG
from recbole_molar.utils import create_dataset

TILES = 8  # colours of items without a picture, --t0 … of page.css
LONGEST = 120  # characters of a title or value


class Catalogue:
    """Items by external id, and users' histories.

    Args:
        folders (list of Path): run folders of the comparison; the data set and filter are those of the first.
        data_path (str, optional): where the data lies now; default where the run found it.
    """

    def __init__(self, folders, data_path=None):
        moved = {"data_path": data_path} if data_path else {}
        dataset = create_dataset(Config(config_file_list=[folders[0] / CONFIG], config_dict=moved), all_positions=True)
        dataset.build()
        self.dataset = dataset
        self.items = np.asarray(dataset.field2id_token[dataset.iid_field]).astype(str)  # [N], row 0 is padding
        self.row = {item: index for index, item in enumerate(self.items.tolist())}
        self.popularity = dataset.item_popularity().numpy()  # [N], training interactions
        self._users = {str(user): index for index, user in enumerate(np.asarray(dataset.field2id_token[dataset.uid_field]).astype(str)[dataset.user_ids])}
        self.content = _content(folders, moved, dataset)

    def history(self, user):
        """External ids of a user's items before the test item, oldest first."""
        place = self._users[user]
        return self.items[self.dataset.sorted_items[self.dataset.user_starts[place] : self.dataset.user_ends[place] - 1].numpy()].tolist()

    def title(self, item):
        """What to call an item: its title, else its id."""
        known = self.content and self.content.items[self.row[item]].title
        return _cut(known or item)

    def picture(self, item):
        """Path of its picture, or None."""
        return self.content and self.content.items[self.row[item]].image_path

    def tile(self, item):
        """Colour of the tile that stands for a missing picture."""
        return zlib.crc32(item.encode()) % TILES

    def fields(self):
        """Text columns: name -> list of values by row, empty where an item has none."""
        names = dict.fromkeys(name for item in self.content.items for name in item.fields) if self.content else {}
        return {name: [item.fields.get(name, "") for item in self.content.items] for name in names}


def _content(folders, moved, dataset):
    """Texts and pictures as the first run that reads both does; as Molar would where no run does; None where there are none."""
    from recbole_molar.stages import read_item_content  # transformers takes seconds to import

    configs = [Config(config_file_list=[folder / CONFIG], config_dict=moved) for folder in folders]
    config = next((config for config in configs if hasattr(config.model_class, "stages") and "item_image_dir" in config), None)
    if config is None:
        config = Config(model="Molar", dataset=configs[0]["dataset"], config_dict={"data_path": configs[0].as_yaml()["data_path"]})
    for modalities in (["text", "image"], ["text"], ["image"]):  # what people see is no ablation: titles and pictures, whatever MIRM read
        try:
            return read_item_content(config, dataset, modalities)
        except ValueError as error:
            getLogger().debug("report: %s", error)
    return None


def _cut(text):
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
