"""Item and user embeddings of finished runs. Nothing is trained or encoded here: what no run has left on disk is left out, with the reason.

Shape letters: N items, U users, D dim.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.checkpoint import load_tensors, read_json
from recbole_molar.config import Config
from recbole_molar.device import make_accelerator
from recbole_molar.model.item_embedding import ItemEmbedding
from recbole_molar.quick_start import make_id_configs, prepare, read_content, train_id_model, trained_id_model
from recbole_molar.run_folder import CONFIG, RESULT
from recbole_molar.trainer.sequential_trainer import BEST
from recbole_molar.utils import get_trainer


class MolarRun:
    """A finished Molar run, loaded to be asked for its embeddings.

    Args:
        folder (Path): of the run; data_path (str, optional): where the data lies now.

    Raises:
        ValueError: something that it is made of is no longer on disk.
    """

    def __init__(self, folder, data_path=None):
        from recbole_molar.stages import assemble, build_id_model, build_mirm, weights_file  # transformers takes seconds to import

        result = read_json(folder / RESULT)
        given = {"output_dir": str(folder.resolve().parents[1]), **({"data_path": data_path} if data_path else {})}
        if result.get("stage_1", {}).get("weights"):
            given["mirm_weights"] = str(weights_file(str(folder)))
        config = Config(config_file_list=[folder / CONFIG], config_dict=given)
        accelerator = make_accelerator(config["precision"], use_cpu=config["device"].type == "cpu", gpu_id=config["gpu_id"])
        config["device"], config["log_wandb"] = accelerator.device, False
        self.prepared = prepare(config)
        mirm = build_mirm(config, read_content(config, self.prepared.dataset))
        if config["item_encoding"] == "end_to_end":  # the table is in the checkpoint
            table = torch.zeros(self.prepared.dataset.item_num, mirm.embedding_dim)
        else:
            table = ItemEmbedding(Path(config["output_dir"]) / "cache").stored(mirm, accelerator)
        if config.reads_id_model and config["id_training"] == "frozen" and not config["id_weights"]:
            for id_config in make_id_configs(config).values():
                if trained_id_model(config, id_config, self.prepared.dataset.split_hash()) is None:
                    raise ValueError(f"the ID model of {folder}, {id_config['model']}, lies neither in {config['output_dir']}/cache nor in a run folder.")
        id_model, id_dim = build_id_model(config, self.prepared, accelerator, SimpleNamespace(notes={}), train_id_model)
        self.model = assemble(config, self.prepared, mirm, table, id_model, id_dim)
        get_trainer(config)(config, self.model, accelerator, folder).load_best()
        self.model.eval()

    @torch.no_grad()
    def item_embeddings(self):
        """What users are scored against: float32 [N, D], row 0 is padding."""
        return self.model.item_embeddings().float().cpu().numpy()

    @torch.no_grad()
    def user_embeddings(self, rows):
        """E_con and, of a run with alignment, E_id in the same dimensions, else None.

        Args:
            rows (ndarray [U]): of the test part.

        Returns:
            tuple: two of float32 [U, D].
        """
        test, content, ids = self.prepared.loaders[2]._dataset.inter_feat, [], []
        for chosen in torch.from_numpy(rows).split(128):
            batch = test[chosen].to(self.model.device)
            content.append(self.model.user_embedding(batch)[0].float().cpu())
            if self.model.aligns:
                ids.append(self.model.id_projection(self.model.id_model(batch)).float().cpu())
        return torch.cat(content).numpy(), torch.cat(ids).numpy() if ids else None

    @property
    def n_test(self):
        """Rows of the test part."""
        return len(self.prepared.loaders[2]._dataset.inter_feat)


def item_embeddings(folder, n_items, molar=None):
    """A run's item embeddings, whatever its model: Molar's own, else a checkpoint's `item_embedding.weight`, or the table that a trained MIRM left.

    Args:
        folder (Path); n_items (int): N; molar (MolarRun, optional): the same run, loaded.

    Returns:
        ndarray: float32 [N, D], or None for a model that has no such table.
    """
    if molar is not None:
        return molar.item_embeddings()
    if not (folder / BEST).is_file():
        return None
    tensors, _ = load_tensors(folder / BEST)
    table = tensors.get("model.item_embedding.weight", tensors.get("model.mirm_table"))
    if table is None or table.dim() != 2 or len(table) < n_items or table.size(1) < 2:  # some models add rows for mask tokens
        return None
    return table[:n_items].float().numpy().astype(np.float32)


def unit_rows(rows):
    """Rows of length 1: [N, D] -> [N, D]; rows of zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
