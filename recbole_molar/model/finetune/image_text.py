"""IT, image-text: read an item's image, write its description."""

from recbole_molar.model.finetune.base import FinetuneTask, Sample, Unbuildable, attributes_sentence, draw


class ImageText(FinetuneTask):
    """The item's image alone -> its description, or its attributes where it has none."""

    name = "image_text"
    reads_items_alone = True

    def samples(self, content, images, train_histories, count, rng):
        """See :meth:`FinetuneTask.samples`."""
        if not any(item.fields for item in content.items):
            raise Unbuildable("there is no text to write: item_modalities leaves it out")
        paired = [index for index, item in enumerate(content.items) if item.image_path is not None and item.fields]
        made, drawn = [], draw(paired, len(paired), rng)
        images.read_ahead(drawn[:count])
        for index in drawn:
            if len(made) == count:
                break
            item = content.items[index]
            if images.get(index) is not None:
                made.append(Sample((index,), item.description or attributes_sentence(item, content), parts="image"))
        if not made:
            raise Unbuildable("no item has a readable image")
        return made
