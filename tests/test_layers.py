"""Imports point one way, and heavy libraries are imported only where they are used."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = [
    {"errors", "report", "html"},
    {"dtypes", "tensors"},
    {"names", "kinds", "formats", "renames", "adaptation", "folding", "labels"},
    {"plan", "surgery", "layouts", "diff", "verification", "overview", "graphs"},
    {"recipe", "recipe_settings", "explorer", "events"},
    {"cli"},
    {"api"},
]
ROOMS = ("options", "data", "plan", "graph", "cache", "use", "pages", "run")  # of train/; imports point to the left
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}
HEAVY = {"numpy", "tensorflow", "tf_slim", "h5py", "matplotlib", "sklearn", "yaml", "PIL", "safetensors", "tqdm"}
HEAVY |= {"fsspec", "ray"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path, package: str, *, top_only: bool = False) -> set[str]:
    """Full names of the modules that a file imports; `package` is the dotted package that the file belongs to."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parent.parts
    return ".".join(parts if parts[0] == "ckpt_tools" else ("ckpt_tools", *parts))


def layer_of(name: str) -> str | None:
    """`ckpt_tools.formats.v2` -> `formats`; None for what is not a layer of ours."""
    parts = name.split(".")
    return parts[1] if parts[0] == "ckpt_tools" and len(parts) > 1 and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", modules("ckpt_tools"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(ROOT / "ckpt_tools").with_suffix("").parts
    if parts[0] in ("__init__", "__main__"):
        return
    assert parts[0] in LEVEL, f"{parts[0]} has no place in LAYERS"
    for name in imported(path, package_of(path)):
        target = layer_of(name)
        if target is not None:
            assert LEVEL[target] <= LEVEL[parts[0]], f"{path.name} imports {name}, which lies above it"


@pytest.mark.parametrize("path", modules("ckpt_tools"), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_faces_import_nets_and_train(path: Path) -> None:
    """The commands in cli/ and the functions in api/, which `ckpt_tools.__getattr__` imports on first use."""
    if path.relative_to(ROOT).parts[1] in ("cli", "api"):
        return
    for name in imported(path, package_of(path)):
        assert not name.startswith(("ckpt_tools.nets", "ckpt_tools.train", "tensorflow", "tf_slim", "keras")), name


@pytest.mark.parametrize("path", modules("ckpt_tools"), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported(path, package_of(path), top_only=True)}
    assert not tops & HEAVY


@pytest.mark.parametrize("path", modules("nets"), ids=lambda p: p.name)
def test_nets_do_not_import_the_trainer(path: Path) -> None:
    assert not any(name.startswith(("ckpt_tools.train", "ckpt_tools.cli")) for name in imported(path, package_of(path)))


def room_of(name: str) -> str | None:
    """`ckpt_tools.train.data.exif` -> `data`; None for what lies in no room of train/."""
    parts = name.split(".")
    return parts[2] if parts[:2] == ["ckpt_tools", "train"] and len(parts) > 2 else None


@pytest.mark.parametrize("path", modules("train"), ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_of_train_import_to_the_left(path: Path) -> None:
    if path.parent == ROOT / "train":
        assert path.name == "__init__.py", "every module of train/ lies in a room"
        return
    for name in imported(path, package_of(path)):
        room = room_of(name)
        if room is not None:
            assert ROOMS.index(room) <= ROOMS.index(path.parent.name), f"{path.name} imports {name}"


WRITES_TEXT = re.compile(r"\.write_text\(|\.open\([\"']w[\"']|(?<![.\w])open\([^)\n]*[\"']w[\"']")


@pytest.mark.parametrize("path", [*modules("ckpt_tools"), *modules("train")], ids=lambda p: str(p.relative_to(ROOT)))
def test_text_files_are_written_in_one_way(path: Path) -> None:
    """`placing.write_text` moves them into place; the sidecar is made in a folder that is moved as a whole."""
    found = WRITES_TEXT.findall(path.read_text(encoding="utf-8"))
    assert len(found) == {"provenance.py": 1}.get(path.name, 0), found


def test_the_check_itself_can_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "names.py"
    wrong.write_text("from ..cli import run\nfrom . import plan\nimport numpy\n", encoding="utf-8")
    found = imported(wrong, "ckpt_tools.formats")
    assert {"ckpt_tools.cli", "ckpt_tools.formats.plan", "numpy"} <= found
    assert len(WRITES_TEXT.findall('Path(a).write_text(b)\nopen(path, "w")\nopen(path, "rb")\np.open("w")')) == 3
    assert LEVEL[layer_of("ckpt_tools.cli.run")] > LEVEL["formats"]
    assert "numpy" in imported(wrong, "ckpt_tools.formats", top_only=True)
    assert room_of("ckpt_tools.train.run.finetune") == "run" and room_of("ckpt_tools.plan") is None
