"""`python -m ckpt_tools COMMAND ...` is the same as `ckpt-COMMAND ...`."""

import sys
from importlib import import_module

from . import __version__
from .cli import printed
from .errors import nearest

COMMANDS = {
    "inspect": "what a checkpoint holds",
    "verify": "check structure and checksums; save what is still intact",
    "diff": "what differs between two checkpoints",
    "plan": "what a net would restore from a checkpoint, and why",
    "edit": "rename, drop, cast, resize, average: surgery without TensorFlow",
    "convert": "convert between V1, V2, npz, safetensors and Keras files",
    "finetune": "restore a checkpoint and train the selected scopes",
    "evaluate": "accuracy, confusion matrix and worst errors on a data set",
    "predict": "labels with probabilities for images",
    "features": "feature extraction: embeddings of a data set, with pictures",
    "export": "SavedModel, frozen graph, TFLite",
    "completion": "completions for bash, zsh and tcsh",
}


def main(argv: list[str] | None = None) -> int:
    return printed("ckpt_tools", lambda: run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
        print(f"usage: python -m ckpt_tools COMMAND ...\n\n{listed}", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"ckpt-tools {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"ckpt_tools: no command {argv[0]!r}{nearest(argv[0], COMMANDS)}", file=sys.stderr)
        return 2
    return import_module(f"ckpt_tools.cli.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    sys.exit(main())
