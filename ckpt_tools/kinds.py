"""Classifies the tensors of a checkpoint: weight, batch-norm statistic, optimizer slot, moving average, step.

A name alone is not enough: `net/weights/Adam` is a slot because `net/weights` is a variable of the same shape, and
`moments/mean/ExponentialMovingAverage` is not an average of a weight but a batch norm's statistic. So every rule also
looks at the other names in the file. Sources of the rules: slot_creator.py, moving_averages.py and the optimizers of
TensorFlow 1, `.OPTIMIZER_SLOT` in object-based checkpoints, the optimizers of Keras 2 and 3, the names used by BERT,
tensor2tensor, Mesh TensorFlow, tensorpack and Sonnet, and PyTorch's state dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from .tensors import Spec

AVERAGE = "/ExponentialMovingAverage"  # suffix of TensorFlow 1's average of a variable
KINDS = ("weight", "statistic", "slot", "average", "step", "other")


class Kind(NamedTuple):
    """`kind` is one of KINDS. `of` is the variable that a slot or an average belongs to, if known."""

    kind: str
    of: str | None = None
    slot: str | None = None  # the slot's own name, such as "Adam_1"; for an optimizer's scalar, its last component


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_Rule = Callable[[str, str, str, Spec], Kind | None]
_WEIGHT, _STATISTIC, _STEP, _OTHER = Kind("weight"), Kind("statistic"), Kind("step"), Kind("other")

# The words below are last components of names, without the "_1" that TensorFlow adds to a repeated name. TensorFlow 1
# names a slot after the optimizer's class; Keras, BERT and Mesh TensorFlow name it after its content.
_TF1_SLOTS = _words(
    "Adam AdamW AdaMax Adamax Nadam AMSGrad Adagrad AdagradDA Adadelta Adafactor AdaBound RMSProp RMSprop Momentum"
    " MomentumW Ftrl LAMB LARS LazyAdam NovoGrad PowerSign AddSign ProximalAdagrad YellowFin RAdam RectifiedAdam SM3"
    " Shampoo AdamOptimizer AdamWOptimizer MomentumOptimizer RMSPropOptimizer LAMBOptimizer LARSOptimizer"
)
_SLOTS = _words(
    "m v vhat mg rms momentum momentums velocity accumulator accum_grad accum_var accumulated_grad"
    " accumulated_delta_var linear slow adam_m adam_v lamb_m lamb_v average_gradient gradient_accumulator grad_acc"
    " delta_accumulator slot_v slot_vr slot_vc slot_m"
)
_AVERAGES = _words("ExponentialMovingAverage MovingAverage EMA ema avg average shadow swa polyak")
_STATISTICS = frozenset(
    f"{how}_{what}"
    for how in ("moving", "running", "pop", "population")
    for what in ("mean", "variance", "var", "avg", "average", "std", "stddev", "stdev")
) | {"num_batches_tracked"}
_MOMENTS = _words("mean variance var stddev count")  # beside beta or gamma
_COMPANIONS = _words("biased local_step hidden counter")  # of zero-debiased averages
_STEPS = _words("global_step globalstep save_counter iteration iterations iter train_step step")
_SCALARS = _words("beta1_power beta2_power learning_rate loss_scale current_loss_scale good_steps")
_SETTINGS = _words(  # in an optimizer's scope only
    "decay weight_decay momentum momentum_cache rho epsilon beta beta_1 beta_2 lr l1_regularization_strength"
    " l2_regularization_strength learning_rate_power initial_accumulator_value u_product"
)
_OPTIMIZERS = _words("adam adamw adamax nadam adagrad adadelta adafactor rmsprop ftrl sgd lamb lars lion")
_SLOT_SCOPES = ("m", "v", "vhat", "momentum", "velocity", "accumulator", "rms")
_AVERAGE_SCOPES = (
    *("ExponentialMovingAverage", "MovingAverage", "EMA", "ema", "moving_average", "shadow"),
    *("state_dict_ema", "model_ema", "ema_state_dict"),  # PyTorch's training scripts
)
_KERAS_LISTS = ("_variables", "variables", "vars")
_TELLING = (*(f"/{word}/" for word in _SLOT_SCOPES), *(f"{word}/" for word in _AVERAGE_SCOPES), "ptimizer", "ptimiser")
_JOINED = ("_momentum", "_velocity", "_accumulator", "_average_gradient")
_FLOATS = ("float", "bfloat", "complex", "q")
_WEIGHTS = _words("weight weights kernel filter filters w bias biases embedding embeddings")
_OBJECT_SLOT, _OBJECT_VALUE = "/.OPTIMIZER_SLOT/", "/.ATTRIBUTES/VARIABLE_VALUE"
_DEEPEST = 12  # components of an optimizer's own scope that are tried before a variable's name


def kinds(specs: Mapping[str, Spec], stored_names: Mapping[str, str] | None = None) -> dict[str, Kind]:
    """The kind of every tensor of one file, in the order of `specs`.

    `stored_names` gives the keys of object-based checkpoints, as in `Tensors.stored_names`: a counter whose variable
    has the default name "Variable" may be stored under the key "step/.ATTRIBUTES/VARIABLE_VALUE".

    >>> f, s = "float32", (3, 3)
    >>> found = kinds({"net/w": Spec(f, s), "net/w/Adam_1": Spec(f, s), "global_step": Spec("int64", ())})
    >>> found["net/w/Adam_1"]
    Kind(kind='slot', of='net/w', slot='Adam_1')
    """
    found = _Kinds(specs).all()
    if not stored_names:
        return found
    shown = {key: name for name, key in stored_names.items()}
    by_key = _Kinds({stored_names.get(name, name): spec for name, spec in specs.items()}).all()
    for name, told in found.items():
        better = by_key[stored_names.get(name, name)]
        if told.kind in ("weight", "other") and better.kind not in ("weight", "other"):
            found[name] = better._replace(of=better.of and shown.get(better.of, better.of))
    return found


class _Kinds:
    """Classifies all names of one file together."""

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self.specs = specs
        self.rules: dict[str, _Rule | None] = {}  # by last component: few are distinct, while names may be a million
        text = "\n".join([*specs, ""])
        self.scopes_tell = any(word in text for word in _TELLING)
        self.has_metrics = "metrics/" in text
        self.decorated = f"{_OBJECT_VALUE}\n" in text or ":0\n" in text
        self.names = {_path(name) if self.decorated else name: name for name in specs}  # path -> name as shown
        self.optimizer_scopes: set[str] = set()
        self.undecided: list[str] = []  # paths that can be decided only when all slots are known
        self.flat: dict[str, str] | None = None

    def all(self) -> dict[str, Kind]:
        found = {name: self._kind(name, spec) for name, spec in self.specs.items()}
        slots = {each.slot for each in found.values() if each.slot} if self.undecided else set()
        for path in self.undecided:
            scope, _, leaf = path.rpartition("/")
            if _stem(leaf).lstrip("_") in _SETTINGS:
                if scope in self.optimizer_scopes or _is_optimizer(scope):
                    found[self.names[path]] = Kind("slot", None, leaf)
            elif leaf in slots or f"{path}_1" in self.names or (leaf.endswith("_1") and path[:-2] in self.names):
                found[self.names[path]] = Kind("slot", None, leaf)  # its variable is in another file
        return found

    def _kind(self, name: str, spec: Spec) -> Kind:
        path = _path(name) if self.decorated else name
        if spec.dtype in ("string", "variant", "bool") or (self.has_metrics and "/metrics/" in f"/{path}"):
            return _OTHER
        if self.decorated and _OBJECT_SLOT in path:
            owner, _, slot = path.partition(_OBJECT_SLOT)
            optimizer, _, slot = slot.rpartition("/")
            self.optimizer_scopes.add(optimizer)
            return Kind("average" if slot in _AVERAGES else "slot", self.names.get(owner), slot)
        scope, _, leaf = path.rpartition("/")
        try:
            rule = self.rules[leaf]
        except KeyError:
            rule = self.rules[leaf] = self._rule(leaf)
        found = rule(path, scope, leaf, spec) if rule else None
        if found is None and self.scopes_tell:
            found = self._by_scope(path, spec)
        if found is None:
            is_weight = spec.dtype.startswith(_FLOATS) or (spec.shape and _stem(leaf).lower() in _WEIGHTS)
            return _WEIGHT if is_weight else _OTHER
        return found

    def _rule(self, leaf: str) -> _Rule | None:
        """The rule for names with this last component; None if there is none."""
        stem = _stem(leaf)
        plain = stem.lstrip("_").lower()
        if leaf.rpartition(".")[2] in _STATISTICS:  # PyTorch: layer1.0.bn1.running_mean
            return lambda *_: _STATISTIC
        for words, word, rule in (
            (_STATISTICS, stem, lambda *_: _STATISTIC),
            (_AVERAGES, stem, self._average),
            (_TF1_SLOTS | _SLOTS, stem, self._slot),
            (_COMPANIONS, stem, self._companion),
            (_STEPS, plain, self._step),
            (_SCALARS, plain, self._scalar),
            (_SETTINGS, plain, self._setting),
            (_MOMENTS, stem.lower(), self._moment),
            (("min", "max"), stem, self._range),
        ):
            if word in words:
                return rule
        if stem.startswith("renorm_"):
            return lambda *_: _STATISTIC
        if stem.endswith(_JOINED) or "_slot_" in stem:
            return self._joined
        is_class_name = stem[:1].isupper() and stem.isalnum() and not stem.isupper()
        return self._own_class if is_class_name else None

    def _by_scope(self, path: str, spec: Spec) -> Kind | None:
        """Slots and averages in a scope of their own, and the numbered variables of Keras 3's optimizers."""
        components = path.split("/")
        for position, component in enumerate(components[:-1]):
            after = components[position + 1 :]
            if component in _SLOT_SCOPES and position:
                owner = self._owner("/".join(after), spec.shape)
                if owner:
                    self.optimizer_scopes.add("/".join(components[:position]))
                    return Kind("slot", owner, component)
            elif component in _AVERAGE_SCOPES:
                owner = self._owner("/".join(components[:position] + after), spec.shape)
                if owner:
                    return Kind("average", owner)
        if len(components) > 3 and components[-3] == "state" and components[-2].isdigit() and _is_optimizer(path):
            return Kind("slot", None, components[-1])  # PyTorch numbers the variables: optimizer/state/0/exp_avg
        if len(components) > 2 and components[-1].isdigit() and components[-2] in _KERAS_LISTS and _is_optimizer(path):
            return _STEP if not spec.shape and spec.dtype.startswith("int") else Kind("slot")
        return None

    def _slot(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        owner = self._owner(scope, None if leaf.startswith(("Adafactor", "slot_v")) else spec.shape)
        if owner == scope:
            return Kind("slot", owner, leaf)
        if owner:
            self.optimizer_scopes.add(scope[: -len(_path(owner))].rstrip("/"))
            return Kind("slot", owner, leaf)
        stem = _stem(leaf)
        if stem in _TF1_SLOTS or (stem in _SETTINGS and not spec.shape):
            self.undecided.append(path)
        return None

    def _own_class(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        """`net/weights/MyOptimizer`: a slot of an unlisted optimizer."""
        owner = self._owner(scope, spec.shape) if spec.shape else None
        return Kind("slot", owner, leaf) if owner else None

    def _joined(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        """`kernel_slot_vr` of Mesh TensorFlow; `adam/dense_kernel_velocity` of Keras 3."""
        stem, _, slot = leaf.rpartition("_slot_")
        if stem:
            owner = self.names.get(f"{scope}/{stem}".lstrip("/"))
            return Kind("slot", owner, f"slot_{slot}") if owner else None
        if not _is_optimizer(scope):
            return None
        if self.flat is None:
            self.flat = {path.replace("/", "_"): shown for path, shown in self.names.items()}
        slot = next(word[1:] for word in _JOINED if leaf.endswith(word))
        owner = self.flat.get(leaf[: -len(slot) - 1])
        return Kind("slot", owner, slot) if owner and self.specs[owner].shape == spec.shape else None

    def _average(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        owner = self._owner(scope, spec.shape)
        if owner:
            return Kind("average", owner)
        if self._holds_moments(scope):
            return _STATISTIC
        # The average of a tensor that is not a variable, such as the loss in TensorFlow's CIFAR-10 tutorial.
        return Kind("average") if leaf.startswith("Exponential") or not spec.shape else None

    def _companion(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        """`X/biased` and `X/local_step` have the kind of `X`; see assign_moving_average(zero_debias=True)."""
        for tail in _tails(scope):
            if tail in self.names:
                owner = self.names[tail]
                return self._kind(owner, self.specs[owner])._replace(slot=None)
        average = _stem(scope.rpartition("/")[2])
        if average in _STATISTICS or self._holds_moments(scope):
            return _STATISTIC
        return Kind("average") if average in _AVERAGES else None

    def _step(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        integer = spec.dtype.startswith(("int", "uint"))
        counts = integer or leaf.lower() in ("global_step", "iterations")
        return _STEP if counts and spec.parameters == 1 else None

    def _scalar(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        return None if spec.shape else Kind("slot", None, leaf)

    def _setting(self, path: str, scope: str, leaf: str, spec: Spec) -> None:
        if not spec.shape:
            self.undecided.append(path)

    def _moment(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        return _STATISTIC if self._normalises(scope) else None

    def _range(self, path: str, scope: str, leaf: str, spec: Spec) -> Kind | None:
        return _STATISTIC if scope.endswith("_quant") else None  # fake quantisation's moving minimum and maximum

    def _owner(self, path: str, shape: tuple[int, ...] | None) -> str | None:
        """The variable that `path` names, with or without an optimizer's scope in front."""
        for tail in _tails(path):
            owner = self.names.get(tail)
            if owner is not None and (shape is None or self.specs[owner].shape == shape):
                return owner
        return None

    def _holds_moments(self, scope: str) -> bool:
        """Whether an average is one of moments, as in hand-written batch norms or tensorpack's."""
        above, _, leaf = scope.rpartition("/")
        return "moments" in scope.split("/") or (_stem(leaf) in _MOMENTS and self._normalises(above))

    def _normalises(self, scope: str) -> bool:
        if any(f"{scope}/{each}" in self.names for each in ("beta", "gamma", "offset", "scale")):
            return True
        layer = _stem(scope.rpartition("/")[2].lower())
        return (
            layer.startswith("bn")
            or layer.endswith("_bn")
            or "batchnorm" in layer.replace("_", "")
            or (layer in ("batch_normalization", "normalization"))
        )


def _path(name: str) -> str:
    """The name without the suffixes of object-based checkpoints and Keras."""
    if name.endswith(_OBJECT_VALUE):
        return name[: -len(_OBJECT_VALUE)]
    return name[:-2] if name.endswith(":0") else name


def _stem(leaf: str) -> str:
    """`Adam_1` -> `Adam`; `beta_1` stays, since TensorFlow did not add that 1."""
    stem = leaf.rstrip("0123456789")
    return stem[:-1] if stem != leaf and stem.endswith("_") and len(stem) > 1 and leaf not in _SETTINGS else leaf


def _tails(path: str) -> Iterator[str]:
    """The path, then the path without its first component, and so on."""
    yield path
    for _ in range(_DEEPEST):
        _, slash, path = path.partition("/")
        if not slash:
            return
        yield path


def _is_optimizer(scope: str) -> bool:
    """Whether one component is named like an optimizer: `OptimizeLoss`, `train_op`, `training/Adam_1`."""
    for component in scope.lower().split("/"):
        if "optimiz" in component or "optimis" in component or component == "train_op":
            return True
        if _stem(component) in _OPTIMIZERS:
            return True
    return False
