"""A ViT-like encoder of items' pictures."""

from transformers import AutoImageProcessor

from recbole_molar.data.content_collator import ImageCollator
from recbole_molar.model.content_encoder.base import ContentEncoder, load_model, refused

DEFAULT_SIDE = 224  # pixels, where a processor does not say


class ImageEncoder(ContentEncoder):
    """Any image encoder of transformers (ViT, DINOv2, the image tower of CLIP), its states averaged over the patches of a picture."""

    modality, key, part = "image", "image_encoder", "vision_model"

    @classmethod
    def build(cls, name, content, **options):
        """Load it; arguments, results and errors as of :meth:`TextEncoder.build`."""
        try:
            processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
            return cls(load_model(name, cls), ImageCollator(content, processor, size_of(processor)), **options)
        except Exception as error:  # broken files raise anything; a model of texts, a TypeError
            raise refused(cls, name, error) from error

    def _reading(self):
        return [self.collator.images.size, self.collator.processor.to_dict()]


def size_of(processor):
    """(width, height) that a processor's model reads. Pictures are brought to it at once, as they are decoded, whatever their sides."""
    for size in (getattr(processor, "crop_size", None), getattr(processor, "size", None)):
        given = {name: value for name, value in dict(size or {}).items() if value}
        if "height" in given and "width" in given:
            return given["width"], given["height"]
        if given:
            return (next(iter(given.values())),) * 2
    return DEFAULT_SIDE, DEFAULT_SIDE
