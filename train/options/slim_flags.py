"""Maps flags of slim's own scripts to options here, for users who type them from memory.

Covered are train_image_classifier.py and eval_image_classifier.py, which tf_slim's users copied for years, and the
tutorial's retrain.py.
"""

from __future__ import annotations

from collections.abc import Collection

# slim's flag -> equivalent options (the first one that a command has is used), or the reason why none is needed.
SLIM = {
    "train_dir": ("--train-dir",),
    "checkpoint_path": ("--checkpoint",),
    "checkpoint_exclude_scopes": ("--exclude",),
    "trainable_scopes": ("--trainable",),
    "dataset_dir": ("--data",),
    "image_dir": ("--data",),
    "dataset_name": ("not needed: the kind of data is recognised",),
    "dataset_split_name": ("--split", "not needed: the splits in --data are found"),
    "max_number_of_steps": ("--steps",),
    "how_many_training_steps": ("--steps",),
    "max_num_batches": ("not needed: all images of the split are used",),
    "model_name": ("--net",),
    "train_image_size": ("--image-size",),
    "eval_image_size": ("--image-size",),
    "preprocessing_name": ("--preprocessing",),
    "use_grayscale": ("--adapt-input",),
    "num_classes": ("not needed: the data, or the checkpoint, say how many classes there are",),
    "labels_offset": ("not needed: classes are compared by name",),
    "ignore_missing_vars": ("not needed: ckpt-plan says what is missing, and --exclude what may be",),
    "learning_rate_decay_type": ("--schedule",),
    "learning_rate_decay_factor": ("--decay-rate",),
    "num_epochs_per_decay": ("--decay-epochs",),
    "moving_average_decay": ("--ema", "--moving-averages"),
    "rmsprop_momentum": ("--momentum",),
    "log_every_n_steps": ("--log-steps",),
    "save_summaries_secs": ("--log-steps",),
    "save_interval_secs": ("--save-steps",),
    "bottleneck_dir": ("--cache-dir",),
    "validation_percentage": ("--validation-fraction",),
    "eval_dir": ("--output",),
    "num_clones": ("--devices",),
    "clone_on_cpu": ("--device",),
    "num_readers": ("not needed: all CPU cores are used",),
    "num_preprocessing_threads": ("not needed: all CPU cores are used",),
    **dict.fromkeys(
        ("master", "task", "worker_replicas", "num_ps_tasks", "sync_replicas", "replicas_to_aggregate"),
        ("not needed: TF_CONFIG says which machine does what",),
    ),
}


def here(flag: str, known: Collection[str]) -> str:
    """The equivalent among a command's flags, `known`, of a flag that it does not have: "--train-dir" for
    "--train_dir". A sentence for a slim flag without an equivalent; empty for any other word.

    >>> here("--checkpoint_exclude_scopes", ["--exclude", "--data"])
    '--exclude'
    >>> here("--batch_size", ["--batch-size"]), here("--batchsize", ["--batch-size"])
    ('--batch-size', '')
    """
    name = flag.lstrip("-").replace("-", "_")
    spelt = "--" + name.replace("_", "-")
    if spelt in known:
        return spelt
    wanted = SLIM.get(name, ())
    found = next((each for each in wanted if each in known or not each.startswith("--")), "")
    return found or (f"not an option of this command, but {wanted[0]} of ckpt-finetune" if wanted else "")
