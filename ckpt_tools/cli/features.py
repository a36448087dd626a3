"""ckpt-features: features of a data set to disk, pictures of them, files for TensorBoard's projector."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import DONE, parser, print_json, run, say
from .events import Printer, fact

if TYPE_CHECKING:
    from ..train.use.feature_files import Features
    from ..train.use.features import FeatureOptions

EXAMPLES = """\
  ckpt-features --checkpoint inception_v3.ckpt --data photos --output features --plot
  ckpt-features --checkpoint inception_v3.ckpt --data photos --end-point Mixed_6e --output features_6e
  ckpt-features --checkpoint inception_v3.ckpt --data photos --output f --shards 2 --shard 0     on one machine,
  ckpt-features --checkpoint inception_v3.ckpt --data photos --output f --shards 2 --shard 1     on another, then
  ckpt-features --merge 2 --output f          (machines that have a TF_CONFIG take their shares without being told)
  ckpt-features --checkpoint gs://b/m.ckpt --data gs://b/records --output f --ray auto         on a Ray cluster
  ckpt-finetune --data features.npz --train-dir run --head "dense(1024,relu)"     trains on them, without images"""
DRAWN = {"the projector's files": "projector", "PCA and t-SNE, which takes a while for thousands of images": "plot"}


def make_parser() -> argparse.ArgumentParser:
    """The parser; its options are the fields of `train.use.features.FeatureOptions` and what to draw."""
    from ..train.options.configuration import add_arguments
    from ..train.use.features import FeatureOptions

    made = parser("ckpt-features", "Extracts features (embeddings) of the images of a data set.", EXAMPLES)
    add_arguments(made, FeatureOptions)
    made.add_argument("--plot", action="store_true", help="draw PCA, t-SNE, and the features of single images")
    made.add_argument("--projector", metavar="DIR", help="write files for TensorBoard's embedding projector")
    made.add_argument("--merge", metavar="N", type=int, help="merge the N parts of --output instead")
    made.add_argument("--ray", metavar="ADDRESS", help="compute the parts on a Ray cluster: auto, HOST:PORT, or local")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    made = make_parser()

    def command(args: argparse.Namespace) -> int:
        from ..train.use.feature_files import ENDINGS

        if getattr(args, "dry_run", False):
            return estimate(args)
        if args.plot:
            from ..train.pages.projection import must_draw

            must_draw()  # what is missing is said before the values are computed, not after
        prefix, features = computed(args) if args.merge is None else merged(args)
        written = [prefix + ending for ending in ENDINGS]
        if args.plot or args.projector:
            from ..train.pages.fonts import without_font
            from ..train.pages.projection import write_plots, write_projector

            say(fact("drawing", " and ".join(what for what, asked in DRAWN.items() if getattr(args, asked))))
            written += write_plots(features, prefix) if args.plot else []
            if args.plot and (note := without_font(features.labels)):
                say(fact("note", note))
            written += write_projector(features, args.projector) if args.projector else []
        facts = {**features.facts, "shape": list(features.values.shape), "type": str(features.values.dtype)}
        if args.json:
            print_json({**facts, "files": written})
        else:
            shape = " x ".join(map(str, features.values.shape[1:]))
            print(f"{len(features.values):,} images, {shape} values each, {facts['layer']} of {facts['net']}")
            print("\n".join(written))
        return DONE

    return run(made, command, argv)


def computed(args: argparse.Namespace) -> tuple[str, Features]:
    """Prefix and features."""
    if args.ray:
        from ..train.options.configuration import from_arguments
        from ..train.use.features import FeatureOptions
        from ..train.use.ray_job import write_on_ray

        return write_on_ray(from_arguments(FeatureOptions, args), args.ray, say)
    from ..train.use.features import write_features

    return write_features(options_of(args), Printer())


def estimate(args: argparse.Namespace) -> int:
    """--dry-run: no files, what they would take."""
    from ..train.use.features import dry_run

    found = dry_run(options_of(args), Printer())
    print_json(found.as_dict()) if args.json else print("\n".join(found.lines()))
    return DONE


def options_of(args: argparse.Namespace) -> FeatureOptions:
    """The options, with the share of this machine of a cluster; TensorFlow is loaded."""
    from ..train.graph.cluster import read_cluster
    from ..train.graph.quiet import hush_tensorflow
    from ..train.options.configuration import from_arguments
    from ..train.use.features import FeatureOptions, share_of_machine

    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    options = share_of_machine(from_arguments(FeatureOptions, args), cluster)
    hush_tensorflow()
    return options


def merged(args: argparse.Namespace) -> tuple[str, Features]:
    """The same for parts that are put together; the photos need not be here."""
    from ..errors import RecipeError
    from ..train.use.feature_files import merge_features

    if "output" not in args:
        raise RecipeError("--output must be given: the prefix that the parts have in common")
    return args.output, merge_features(args.output, args.merge)
