"""The forms of an exported classifier: how each is written, read back and run.

All come from one graph, whose tensors have these names:

    images             string [batch]: JPEG or PNG files
    pixels             float32 [batch, s, s, 3]: red, green, blue from 0 to 255, cropped and resized; may be fed instead
    labels             string [batch, top]: the likeliest classes first
    probabilities      float32 [batch, top]: their probabilities
    all_probabilities  float32 [batch, classes]: in the order of the classes

For a net that predicts several labels per image, `labels` are all classes, and there is

    above_threshold    bool [batch, classes]: whether the class in `labels` is predicted
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow
import tensorflow.compat.v1 as tf

from ...errors import UnsupportedError
from ..data.preprocess import fit, scale
from ..graph.quiet import stderr_held
from ..graph.tensorflow_paths import tensorflow_path
from .classifier import Classifier
from .running import logits_of, restore_variables

INPUT, PIXELS = "images", "pixels"
ABOVE = "above_threshold"
OUTPUTS = ("labels", "probabilities", "all_probabilities")


class Form(NamedTuple):
    """One form. `write(session, classifier, path, precision)` makes the file or folder `file` from a session with the
    graph of `build_serving_graph` in that precision; `run(path, images, pixels)` reads it back and returns all
    probabilities, float32 [images, classes]. `tolerance` is their largest allowed difference from the net's own.
    """

    file: str
    write: Callable[[tf.Session, Classifier, Path, str], None]
    run: Callable[[Path, Sequence[bytes], np.ndarray], np.ndarray]
    tolerance: float


def outputs_of(classifier: Classifier) -> tuple[str, ...]:
    """Names of an export's output tensors."""
    return (*OUTPUTS, ABOVE) if classifier.many else OUTPUTS


def build_serving_graph(classifier: Classifier, top: int, precision: str) -> None:
    """Builds decoding, preprocessing, the net and label lookup in the current graph. The net computes in `precision`,
    its head in float32."""
    how = classifier.pixels
    images = tf.placeholder(tf.string, [None], name=INPUT)

    def decoded(image: tf.Tensor) -> tf.Tensor:
        # This decoder gives the same pixels as Pillow, bit for bit, and also takes PNG files.
        pixels = fit(tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE"), how)
        return tf.ensure_shape(pixels * 255.0, [how.image_size, how.image_size, 3])

    made = tf.map_fn(decoded, images, fn_output_signature=tf.float32)
    pixels = tf.placeholder_with_default(made, [None, how.image_size, how.image_size, 3], name=PIXELS)
    logits = logits_of(classifier, tf.cast(scale(pixels / 255.0, how), precision)).tensors["logits"]
    chances = (tf.nn.sigmoid if classifier.many else tf.nn.softmax)(logits, name="all_probabilities")
    count = classifier.classes if classifier.many else min(top, classifier.classes)
    probabilities, classes = tf.math.top_k(chances, k=count)
    tf.identity(probabilities, name="probabilities")
    if classifier.many:
        tf.greater_equal(probabilities, tf.gather(tf.constant(classifier.thresholds), classes), name=ABOVE)
    tf.gather(tf.constant(classifier.labels), classes, name="labels")


def serving_session(classifier: Classifier, top: int, precision: str) -> tf.Session:
    """A session on the CPU with the serving graph and the classifier's values; the caller closes it."""
    graph = tf.Graph()
    with graph.as_default(), tf.device("/cpu:0"):
        build_serving_graph(classifier, top, precision)
        session = tf.Session(graph=graph)
        restore_variables(session, classifier)
    return session


def write_saved_model(session: tf.Session, classifier: Classifier, path: Path, precision: str) -> None:
    """Writes a SavedModel with the signatures "serving_default", which takes image files, and "pixels".

    Its variables keep their names, so that `variables/` is an ordinary slim checkpoint. An auxiliary head, which the
    outputs do not depend on, is left out.
    """
    graph = session.graph
    tensors = {name: graph.get_tensor_by_name(f"{name}:0") for name in (INPUT, PIXELS, *outputs_of(classifier))}
    outputs = {name: tensors[name] for name in outputs_of(classifier)}
    signature = tf.saved_model.predict_signature_def
    with graph.as_default():
        kept = [variable for variable in tf.global_variables() if variable.op.name in classifier.tensors]
        auxiliary = tuple(f"{classifier.net.placed(part)}/" for part in classifier.net.auxiliary)
        kept = [variable for variable in kept if not variable.op.name.startswith(auxiliary)]
        for collection in list(graph.get_all_collection_keys()):
            graph.clear_collection(collection)  # of training; a loader would lack some of the values
        for variable in kept:
            tf.add_to_collection(tf.GraphKeys.GLOBAL_VARIABLES, variable)
        builder = tf.saved_model.Builder(tensorflow_path(path))
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            {
                "serving_default": signature({INPUT: tensors[INPUT]}, outputs),
                PIXELS: signature({PIXELS: tensors[PIXELS]}, outputs),
            },
            saver=tf.train.Saver(kept),
        )
        builder.save()


def frozen(session: tf.Session, classifier: Classifier) -> tf.GraphDef:
    """The graph with constants in place of its variables."""
    definition = session.graph.as_graph_def()
    return tf.graph_util.convert_variables_to_constants(session, definition, list(outputs_of(classifier)))


def write_graphdef(session: tf.Session, classifier: Classifier, path: Path, precision: str) -> None:
    path.write_bytes(frozen(session, classifier).SerializeToString(deterministic=True))


def write_tflite(session: tf.Session, classifier: Classifier, path: Path, precision: str) -> None:
    """Writes a TFLite file that takes `pixels`, since TFLite has no image decoder, and gives all probabilities. With
    float16, weights are stored in that type, and the file computes in it on devices that can."""
    from tensorflow.lite.python.convert_phase import ConverterError

    side = classifier.pixels.image_size
    with serving_session(classifier, 1, "float32") as in_float32:
        definition = frozen(in_float32, classifier)
    with tf.Graph().as_default() as graph:
        pixels = tf.placeholder(tf.float32, [1, side, side, 3], name=PIXELS)
        mapped = {f"{PIXELS}:0": pixels}
        (chances,) = tf.import_graph_def(definition, mapped, ["all_probabilities:0"], name="net")
        with tf.Session(graph=graph) as without_decoder:
            converter = tf.lite.TFLiteConverter.from_session(without_decoder, [pixels], [chances])
            if precision == "float16":
                converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
                converter.target_spec.supported_types = [tf.float16]
            failed = None
            with stderr_held():  # its compiler prints many lines about unsupported operations
                try:
                    path.write_bytes(converter.convert())
                except ConverterError as error:
                    failed = error
            if failed is not None:
                raise _not_for_tflite(failed, classifier.path)


def _not_for_tflite(error: Exception, path: str) -> UnsupportedError:
    """The error for a failed conversion, with the operations that the converter names, else with its first line."""
    text = str(error)
    unknown = ", ".join(dict.fromkeys(re.findall(r"'?tf\.(\w+)'? op is neither", text)))
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    fact = f"it has no {unknown}" if unknown else lines[0] if lines else type(error).__name__
    advice = "Leave tflite out of --format: saved_model and graphdef have every operation."
    return UnsupportedError(f"TFLite cannot convert the net: {fact}", path=path, advice=advice)


def run_saved_model(path: Path, images: Sequence[bytes], pixels: np.ndarray) -> np.ndarray:
    """Runs a SavedModel like another program would: with TensorFlow 1's loader, which TensorFlow Serving uses, too."""
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, [tf.saved_model.SERVING], tensorflow_path(path))
        signature = loaded.signature_def["serving_default"]
        feed = {signature.inputs[INPUT].name: list(images)}
        return session.run(signature.outputs["all_probabilities"].name, feed)


def run_graphdef(path: Path, images: Sequence[bytes], pixels: np.ndarray) -> np.ndarray:
    definition = tf.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default(), tf.Session() as session:
        fed, chances = tf.import_graph_def(definition, return_elements=[f"{INPUT}:0", "all_probabilities:0"])
        return session.run(chances, {fed: list(images)})


def run_tflite(path: Path, images: Sequence[bytes], pixels: np.ndarray) -> np.ndarray:
    with stderr_held():  # it prints which delegate it uses
        interpreter = _interpreter()(tensorflow_path(path))
        interpreter.allocate_tensors()
    (fed,), (chances,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for one in pixels:
        interpreter.set_tensor(fed["index"], one[np.newaxis])
        interpreter.invoke()
        found.append(interpreter.get_tensor(chances["index"])[0])
    return np.stack(found)


def _interpreter() -> Callable[..., Any]:
    """TFLite's interpreter from its new package, or from TensorFlow, whose deprecation warning is suppressed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
        return tensorflow.lite.Interpreter
    return Interpreter


FORMS = {
    "saved_model": Form("saved_model", write_saved_model, run_saved_model, 5e-5),
    "graphdef": Form("model.pb", write_graphdef, run_graphdef, 5e-5),
    "tflite": Form("model.tflite", write_tflite, run_tflite, 1e-4),  # its kernels add in another order
}
