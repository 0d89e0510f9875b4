"""Imports only go down, and kinds of parts never import each other: read off the sources with `ast`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    0: ["compat", "lookup", "property_error", "checkpoint", "command_line", "device", "lock", "processes", "run_folder", "sharding"],
    1: ["data"],
    2: ["model.backbone", "model.alignment", "model.loss", "model.all_positions", "model.like_lengths", "model.fused_layers", "model.item_adapter",
        "model.item_encoder", "model.content_embedding"],
    3: ["model.mirm", "model.content_encoder", "model.user_encoder", "model.id_model"],
    4: ["model.item_embedding", "model.finetune"],
    5: ["model.sequential_recommender"],
    6: ["trainer"],
    7: ["config", "property_schema", "property_combinations", "property_values", "utils", "stages", "feature_stages", "text_stages", "collm_stages"],
    8: ["quick_start", "__main__", "doctor", "compare", "tune", "paper_table", "show_config"],  # doctor and what follows: commands, which use quick_start
}
SHARED_FLOORS = {0, 1, 2, 7, 8}  # elsewhere a module imports only its own kind and lower floors


def kind_of(module):
    """`model.user_encoder.dueg` -> (3, "model.user_encoder"); None for a package that only holds others."""
    for floor, kinds in FLOORS.items():
        for kind in kinds:
            if module == kind or module.startswith(kind + "."):
                return floor, kind
    return None


def module_of(file):
    """Module name inside recbole_molar."""
    parts = file.relative_to(ROOT / "recbole_molar").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(source, module, is_package=False):
    """Modules of recbole_molar that a source imports, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join(["recbole_molar", *package[: len(package) - node.level + 1], *filter(None, [node.module])])
            stands_on_a_floor = kind_of(base.removeprefix("recbole_molar."))
            found += [base] if stands_on_a_floor else [f"{base}.{alias.name}" for alias in node.names]  # from recbole_molar.model import loss
    return [name.removeprefix("recbole_molar.") for name in found if name.startswith("recbole_molar.")]


def violations(importer, imported):
    """Why `importer` may not import `imported`, or None."""
    (floor, kind), target = kind_of(importer), kind_of(imported)
    if target is None:
        return None if imported in ("data", "model") else f"{importer} imports {imported}, which stands on no floor"
    if target[0] > floor:
        return f"{importer} (floor {floor}) imports {imported} (floor {target[0]}): imports only go down"
    if target[0] == floor and kind != target[1] and floor not in SHARED_FLOORS:
        return f"{importer} imports {imported}: kinds of parts never import each other"
    return None


SOURCES = sorted((ROOT / "recbole_molar").rglob("*.py"))


@pytest.mark.parametrize("file", SOURCES, ids=module_of)
def test_imports_only_go_down(file):
    module = module_of(file)
    if not module or module == "model":
        assert not imports_of(file.read_text(encoding="utf-8"), module, is_package=True)
        return
    assert kind_of(module), f"{file}: give it a floor, in DESIGN.md and here"
    imported = imports_of(file.read_text(encoding="utf-8"), module, is_package=file.stem == "__init__")
    assert [why for name in imported if (why := violations(module, name))] == []


def test_converters_stand_alone():
    for file in (ROOT / "dataset_converters").rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [name for node in nodes for name in (getattr(node, "module", None), *(alias.name for alias in node.names))]
        assert not [name for name in names if str(name).startswith("recbole_molar")], file


def test_the_rule_sees_what_it_forbids():
    assert violations("data.dataset", "model.loss") and violations("model.user_encoder.dueg", "model.id_model.id_model")
    assert violations("model.mirm", "model.user_encoder.dueg") and violations("trainer.sequential_trainer", "config")
    assert not violations("model.sequential_recommender.molar", "model.loss") and not violations("model.user_encoder.dueg", "model.user_encoder.base")
    assert imports_of("def f():\n    from recbole_molar.model import loss", "data.x") == ["model.loss"]
    assert imports_of("from . import base\nfrom ..loss import f", "model.user_encoder.x") == ["model.user_encoder", "model.loss"]
    assert imports_of("import recbole_molar.config", "data.x") == ["config"] and imports_of("import torch, recbole.config", "x") == []
