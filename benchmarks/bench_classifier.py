"""Compares the classifier on saved transfer values with the same model in Keras `fit`: milliseconds per step.

    python benchmarks/bench_classifier.py [STEPS]

10,000 vectors of 2,048 values, ten classes, one layer of 1,024 units, Adam 1e-4, batches of 64. The two take turns, so
that other load on the machine affects both; the best turn of each counts.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ckpt_tools.train.graph.quiet import hush_tensorflow

hush_tensorflow()
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
TURNS, BATCH = 4, 64


def vectors(count=10_000, width=2048, classes=10):
    random = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % classes
    centres = random.normal(size=(classes, width)).astype(np.float32)
    values = np.maximum(0.3 * centres[labels] + random.normal(size=(count, width)).astype(np.float32), 0)
    return values, labels


def ours(path, steps, folder):
    from ckpt_tools.train.options.training import Options
    from ckpt_tools.train.run.finetune import finetune

    how = {"head": "dense(1024,relu)", "learning_rate": 1e-4, "batch_size": BATCH, "weight_decay": 0.0}
    result = finetune(Options(data=path, train_dir=folder, steps=steps, fresh=True, **how))
    seconds = json.loads((Path(folder) / "result.json").read_text())["seconds"]
    return seconds["training"] / result.step, result.validation["validation_accuracy"]


def keras(values, labels, test_values, test_labels, steps):
    import keras

    model = keras.Sequential(
        [
            keras.Input((values.shape[1],)),
            keras.layers.Dense(1024, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
    per_epoch = -(-len(values) // BATCH)
    model.fit(values[: 4 * BATCH], labels[: 4 * BATCH], batch_size=BATCH, verbose=0)  # compiles
    began = time.monotonic()
    epochs = max(1, steps // per_epoch)
    held = (test_values, test_labels)
    history = model.fit(values, labels, batch_size=BATCH, epochs=epochs, verbose=0, validation_data=held)
    return (time.monotonic() - began) / (epochs * per_epoch), history.history["val_accuracy"][-1]


def main():
    values, labels = vectors(12_000)
    split = np.array(["train"] * 10_000 + ["validation"] * 2_000)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "vectors.npz")
        np.savez(path, features=values, labels=labels, split=split)
        seconds = {"ckpt-finetune": [], "Keras fit": []}
        for _ in range(TURNS):
            taken, accuracy = ours(path, STEPS // TURNS, str(Path(folder) / "run"))
            seconds["ckpt-finetune"].append(taken)
            theirs, keras_accuracy = keras(
                values[:10_000], labels[:10_000], values[10_000:], labels[10_000:], STEPS // TURNS
            )
            seconds["Keras fit"].append(theirs)
            print(f"turn: {taken * 1e3:.2f} ms a step (accuracy {accuracy:.3f}), ", end="")
            print(f"Keras {theirs * 1e3:.2f} ({keras_accuracy:.3f})")
    best = {name: min(taken) for name, taken in seconds.items()}
    for name, taken in best.items():
        print(f"{name:<14} {taken * 1e3:6.2f} ms a step, {taken * STEPS:6.1f} s for {STEPS:,} steps")
    print(f"{best['Keras fit'] / best['ckpt-finetune']:.2f} times as fast")


if __name__ == "__main__":
    main()
