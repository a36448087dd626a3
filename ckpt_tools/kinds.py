"""What each tensor of a checkpoint is for: weight, batch-norm statistic, optimizer slot, moving average, step.

A name alone does not tell: `net/weights/Adam` is a slot because `net/weights` is a variable of the same shape, and
`moments/mean/ExponentialMovingAverage` is no average of a weight but the statistic that batch norm needs. So every
rule looks at the other names of the file too. Where the rules come from: slot_creator.py, moving_averages.py and the
optimizers of TensorFlow 1, `.OPTIMIZER_SLOT` of object-based checkpoints, the optimizers of Keras 2 and 3, and the
names that BERT, tensor2tensor, Mesh TensorFlow, tensorpack and Sonnet give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from .tensors import Spec

KINDS = ("weight", "statistic", "slot", "average", "step", "other")


class Kind(NamedTuple):
    """`kind` is one of KINDS. `of` is the variable that a slot or an average belongs to, where it is known."""

    kind: str
    of: str | None = None
    slot: str | None = None  # the slot's own name, such as "Adam_1"; for an optimizer's scalar, its last component


_Rule = Callable[[str, str, str, Spec, str], Kind | None]
_WEIGHT, _STATISTIC, _STEP, _OTHER = Kind("weight"), Kind("statistic"), Kind("step"), Kind("other")

# An optimizer's class name with or without a number, as TF 1 names slots; lower-case names are those of Keras and BERT.
_TF1_SLOT = re.compile(
    r"(Adam|AdamW|AdaMax|Adamax|Nadam|AMSGrad|Adagrad|AdagradDA|Adadelta|Adafactor|AdaBound|RMSProp|RMSprop|Momentum"
    r"|MomentumW|Ftrl|LAMB|LARS|LARSOptimizer|LazyAdam|NovoGrad|PowerSign|AddSign|ProximalAdagrad|VariableClipping"
    r"|YellowFin|RAdam|RectifiedAdam|SM3|Shampoo)(Optimizer)?(_\d+)?"
)
_SLOT = re.compile(
    r"m|v|vhat|mg|rms|momentum|momentums|velocity|accumulator|accum_grad|accum_var|accumulated_grad|accumulated_delta_var"
    r"|linear|slow|adam_m|adam_v|lamb_m|lamb_v|average_gradient|gradient_accumulator|grad_acc|delta_accumulator"
    r"|g_acc|slot_v|slot_vr|slot_vc|slot_m"
)
_CLASS_NAME = re.compile(r"[A-Z][A-Za-z]*[a-z][A-Za-z0-9]*(_\d+)?")  # of an optimizer that is not listed
_AVERAGE = re.compile(r"(ExponentialMovingAverage|MovingAverage|EMA|ema|avg|average|shadow|swa|polyak)(_\d+)?")
_STATISTIC_NAME = re.compile(
    r"(moving|running|pop|population)_(mean|variance|var|avg|average|std|stddev|stdev)(_\d+)?"
    r"|renorm_\w+|num_batches_tracked"
)
_MOMENT = re.compile(r"(mean|variance|var|stddev|count)(_\d+)?", re.IGNORECASE)
_NORMALISATION = re.compile(r"(^|/)(bn[^/]*|[^/]*_bn\d*|[^/]*batch_?norm[^/]*|normalization(_\d+)?)$", re.IGNORECASE)
_COMPANION = re.compile(r"(biased|local_step|hidden|counter)(_\d+)?")  # of zero-debiased averages
_STEP_NAME = re.compile(r"_?(global_?step|save_counter|iterations?|iter|train_?step|step)(_\d+)?", re.IGNORECASE)
_SCALAR = re.compile(r"beta[12]_power(_\d+)?|learning_rate|_learning_rate|loss_scale|current_loss_scale|good_steps")
_SETTING = re.compile(  # an optimizer's scalar when it lies in an optimizer's scope
    r"_?(decay|weight_decay|momentum|momentum_cache|rho|epsilon|beta|beta_[12]|lr|l[12]_regularization_strength"
    r"|learning_rate_power|initial_accumulator_value|u_product)"
)
_OPTIMIZER = re.compile(
    r"optimi[sz]e|train_op|(^|[/_])(adam\w*|adagrad|adadelta|rmsprop|ftrl|sgd|lamb|lars)(_\d+)?(/|$)", re.I
)
_OPTIMIZER_LIST = re.compile(r"optimi[sz]er[^/]*/(.*/)?(_variables|variables|vars)/\d+$", re.IGNORECASE)
_SLOT_SCOPE = re.compile(r"/(m|v|vhat|momentum|velocity|accumulator|rms)/")
_AVERAGE_SCOPE = re.compile(r"(?:^|/)(ExponentialMovingAverage|MovingAverage|EMA|ema|moving_average|shadow)/")
_METRIC = re.compile(r"(^|/)(keras_api/)?metrics/")
_TELLING_SCOPES = (  # one of these is in a name that _SLOT_SCOPE, _AVERAGE_SCOPE or _OPTIMIZER_LIST matches
    *(f"/{word}/" for word in ("m", "v", "vhat", "momentum", "velocity", "accumulator", "rms")),
    *("Average/", "EMA/", "ema/", "moving_average/", "shadow/", "ptimizer", "ptimiser", "OPTIMI"),
)
_FLOATS = ("float", "bfloat", "complex", "q")
_WEIGHT_NAME = re.compile(r"weights?|kernel|filters?|w|biases|bias|embeddings?", re.IGNORECASE)
_OBJECT_SLOT, _OBJECT_VALUE = "/.OPTIMIZER_SLOT/", "/.ATTRIBUTES/VARIABLE_VALUE"
_DEEPEST = 12  # components of an optimizer's own scope that are tried before a variable's name


def kinds(specs: Mapping[str, Spec]) -> dict[str, Kind]:
    """The kind of every tensor of one file, in the order of `specs`.

    >>> f, s = "float32", (3, 3)
    >>> found = kinds({"net/w": Spec(f, s), "net/w/Adam_1": Spec(f, s), "global_step": Spec("int64", ())})
    >>> found["net/w/Adam_1"]
    Kind(kind='slot', of='net/w', slot='Adam_1')
    """
    return _Kinds(specs).all()


class _Kinds:
    """One file's names, looked at together."""

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self.specs = specs
        self.rules: dict[str, _Rule | None] = {}  # of each last component: few differ, names may be a million
        text = "\n".join([*specs, ""])
        self.decorated = f"{_OBJECT_VALUE}\n" in text or ":0\n" in text
        self.names = {_path(name) if self.decorated else name: name for name in specs}  # path -> name as shown
        self.scopes_tell = any(word in text for word in _TELLING_SCOPES)
        self.has_metrics = "metrics/" in text
        self.optimizer_scopes: set[str] = set()
        self.undecided: dict[str, str] = {}  # name -> path: decided when all slots are known
        self.flat: dict[str, str] | None = None

    def all(self) -> dict[str, Kind]:
        found = {name: self._kind(name, spec) for name, spec in self.specs.items()}
        slots = {each.slot for each in found.values() if each.slot}
        for name, path in self.undecided.items():
            scope, _, leaf = path.rpartition("/")
            if _SETTING.fullmatch(leaf):
                if scope in self.optimizer_scopes or _OPTIMIZER.search(scope):
                    found[name] = Kind("slot", None, leaf)
            elif leaf in slots or f"{path}_1" in self.names or path[:-2] in self.names:
                found[name] = Kind("slot", None, leaf)  # its variable is in another file
        return found

    def _kind(self, name: str, spec: Spec) -> Kind:
        path = _path(name) if self.decorated else name
        if spec.dtype in ("string", "variant", "bool") or (self.has_metrics and _METRIC.search(path)):
            return _OTHER
        if _OBJECT_SLOT in path:
            owner, _, slot = path.partition(_OBJECT_SLOT)
            optimizer, _, slot = slot.rpartition("/")
            self.optimizer_scopes.add(optimizer)
            return Kind("average" if _AVERAGE.fullmatch(slot) else "slot", self.names.get(owner), slot)
        scope, _, leaf = path.rpartition("/")
        try:
            rule = self.rules[leaf]
        except KeyError:
            role = _role(leaf)
            rule = self.rules[leaf] = getattr(self, f"_as_{role}") if role else None
        found = rule(path, scope, leaf, spec, name) if rule else None
        if found is None and self.scopes_tell:
            found = self._by_scope(path, spec)
        if found is None:
            is_weight = spec.dtype.startswith(_FLOATS) or (spec.shape and _WEIGHT_NAME.fullmatch(leaf))
            return _WEIGHT if is_weight else _OTHER
        return found

    def _by_scope(self, path: str, spec: Spec) -> Kind | None:
        """Slots and averages that have a scope of their own, and the numbered variables of Keras 3's optimizers."""
        match = _SLOT_SCOPE.search(path)
        if match:
            owner = self._owner(path[match.end() :], spec.shape)
            if owner:
                self.optimizer_scopes.add(path[: match.start()])
                return Kind("slot", owner, match[1])
        match = _AVERAGE_SCOPE.search(path)
        if match:
            owner = self._owner(path[: match.start(1)] + path[match.end() :], spec.shape)
            if owner:
                return Kind("average", owner)
        if _OPTIMIZER_LIST.search(path):
            return _STEP if not spec.shape and spec.dtype.startswith("int") else Kind("slot")
        return None

    def _as_slot(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        owner = self._owner(scope, None if leaf.startswith(("Adafactor", "slot_v")) else spec.shape)
        if owner == scope:
            return Kind("slot", owner, leaf)
        if owner:
            self.optimizer_scopes.add(scope[: -len(_path(owner))].rstrip("/"))
            return Kind("slot", owner, leaf)
        if _TF1_SLOT.fullmatch(leaf) or (_SETTING.fullmatch(leaf) and not spec.shape):
            self.undecided[name] = path
        return None

    def _as_class(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        owner = self._owner(scope, spec.shape) if spec.shape else None
        return Kind("slot", owner, leaf) if owner else None

    def _as_joined(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        """`kernel_slot_vr` of Mesh TensorFlow; `adam/dense_kernel_velocity` of Keras 3."""
        stem, _, slot = leaf.rpartition("_slot_")
        if stem:
            owner = self.names.get(f"{scope}/{stem}".lstrip("/"))
            return Kind("slot", owner, f"slot_{slot}") if owner else None
        stem, _, slot = leaf.rpartition("_")
        if not _OPTIMIZER.search(scope):
            return None
        if self.flat is None:
            self.flat = {path.replace("/", "_"): shown for path, shown in self.names.items()}
        owner = self.flat.get(stem)
        return Kind("slot", owner, slot) if owner and self.specs[owner].shape == spec.shape else None

    def _as_average(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        owner = self._owner(scope, spec.shape)
        if owner:
            return Kind("average", owner)
        if self._is_statistic(path, scope):
            return _STATISTIC
        # The average of a tensor that is no variable, such as the loss in TensorFlow's CIFAR-10 tutorial.
        return Kind("average") if leaf.startswith("Exponential") or not spec.shape else None

    def _as_statistic(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        return _STATISTIC

    def _as_moment(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        return _STATISTIC if self._normalises(scope) else None

    def _as_range(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        return _STATISTIC if scope.endswith("_quant") else None

    def _as_companion(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        """`X/biased` and `X/local_step` are what `X` is; see assign_moving_average(zero_debias=True)."""
        for tail in _tails(scope):
            if tail in self.names:
                owner = self.names[tail]
                return self._kind(owner, self.specs[owner])._replace(slot=None)
        average = scope.rpartition("/")[2]
        if _STATISTIC_NAME.fullmatch(average) or self._is_statistic(path, scope):
            return _STATISTIC
        return Kind("average") if _AVERAGE.fullmatch(average) else None

    def _as_step(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        integer = spec.dtype.startswith(("int", "uint"))
        if spec.parameters == 1 and (integer or leaf.lower() in ("global_step", "iterations")):
            return _STEP
        return None

    def _as_scalar(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        return None if spec.shape else Kind("slot", None, leaf)

    def _as_setting(self, path: str, scope: str, leaf: str, spec: Spec, name: str) -> Kind | None:
        if not spec.shape:
            self.undecided[name] = path
        return None

    def _owner(self, path: str, shape: tuple[int, ...] | None) -> str | None:
        """The variable that `path` names, with or without the scope of an optimizer in front of it."""
        for tail in _tails(path):
            owner = self.names.get(tail)
            if owner is not None and (shape is None or self.specs[owner].shape == shape):
                return owner
        return None

    def _is_statistic(self, path: str, scope: str) -> bool:
        """Whether an average is one of moments: what batch norm written by hand, or tensorpack's, keeps."""
        above, _, leaf = scope.rpartition("/")
        return "moments" in path or (_MOMENT.fullmatch(leaf) is not None and self._normalises(above))

    def _normalises(self, scope: str) -> bool:
        siblings = any(f"{scope}/{each}" in self.names for each in ("beta", "gamma", "offset", "scale"))
        return siblings or _NORMALISATION.search(scope) is not None


def _path(name: str) -> str:
    """The name without what object-based checkpoints and Keras add at its end."""
    if name.endswith(_OBJECT_VALUE):
        return name[: -len(_OBJECT_VALUE)]
    return name[:-2] if name.endswith(":0") else name


def _tails(path: str) -> Iterator[str]:
    """The path, then the path without its first component, and so on."""
    yield path
    for _ in range(_DEEPEST):
        _, slash, path = path.partition("/")
        if not slash:
            return
        yield path


def _role(leaf: str) -> str:
    """Which of the `_as_...` rules looks at a name with this last component; "" for none."""
    for role, expression in _ROLES:
        if expression.fullmatch(leaf):
            return role
    return ""


_ROLES = (
    ("statistic", _STATISTIC_NAME),
    ("average", _AVERAGE),
    ("slot", re.compile(f"({_TF1_SLOT.pattern}|{_SLOT.pattern})(_\\d+)?")),
    ("companion", _COMPANION),
    ("step", _STEP_NAME),
    ("scalar", _SCALAR),
    ("setting", _SETTING),
    ("moment", _MOMENT),
    ("range", re.compile(r"(min|max)(_\d+)?")),
    ("joined", re.compile(r".+_slot_(v|vr|vc|m)|.+_(momentum|velocity|accumulator|average_gradient)")),
    ("class", _CLASS_NAME),
)
