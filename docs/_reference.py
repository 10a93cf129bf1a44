"""The reference pages of what stands in a table: metrics, variants, models, optimizers, schedules, data, exit codes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

from _markdown import block, code, codes, page, plain, table
from _package import (
    DECAYS,
    GUARDS,
    METRICS,
    MODELS,
    NORMS,
    OPTIMIZERS,
    PARAMETRIZATIONS,
    SHOCKS,
    SOURCES,
    VARIANTS,
    WARMUPS,
    ExitCode,
    Sublayer,
    SublayerPosition,
    Variant,
    Wiring,
    exported,
)
from _settings import shown

_SCALES = {"log2": "octaves", "linear": "", "grid": "of the grid"}
_EXIT_CODES = {
    "OK": "Ran. A divergence is data, never an error; a check passed. `diagnose`: no run broke.",
    "INTERNAL": "Internal error, or the disk or storage failed during a run: completed cells are saved.",
    "USAGE": "Usage or configuration error, found before the first training step. `diagnose`: a log could not be "
    "read, or no loss was found in it; the others were read.",
    "NO_VERDICT": "`check` could reach no verdict; `--lenient` makes it a warning and 0. `diagnose`: a run cannot be "
    "judged, and none broke.",
    "MODEL_FAILED": "A cell crashed, ran out of memory or of time (which says nothing about stability); the others are "
    "there. In `check`: the model's own code failed.",
    "NOTHING_TO_RUN": "Reserved; no command ends with it today.",
    "GATE_CROSSED": "`check`: a limit or a gate was crossed. `diagnose`: a run broke.",
    "INTERRUPTED": "Interrupted (Ctrl-C); completed cells are saved, and the message says how to go on.",
    "TERMINATED": "Told to end (SIGTERM); completed cells are saved, and the message says how to go on.",
}


def metrics_page() -> str:
    """Every metric of a result."""
    rows = (
        [code(m.name), m.unit, m.direction or "-", _SCALES[m.scale], plain(m.summary), plain(m.source)]
        for m in METRICS.values()
    )
    return page(
        "Metrics",
        "the table of metrics",
        "Names are those of `result.json`, of thresholds and of claims. Differences of a metric in octaves are taken "
        "in log2; values between two that were tried mean nothing for one of the grid.",
        table(["metric", "unit", "better", "compared in", "meaning", "source"], rows),
    )


def variants_page() -> str:
    """Every norm variant with its equation."""
    intro = (
        "A variant says where norms, gains and gates sit in a residual block. Each is one equation with other "
        "constants, applied to every sublayer f in turn:\n\n"
        + block("x <- post(skip * x + gate * out(f(pre_gain * pre(x))))", "text")
        + "\n\nN is the [norm function](models.md#norm-functions). `NAME:key=value` sets an option of a variant. The "
        "constants below are those of block 3 of 6, for the attention and the feed-forward layer of a decoder, the one "
        "layer of an MLP or the convolutions of a ResNet."
    )
    overview = table(
        ["variant", "", "source"],
        ([f"[`{v.name}`](#{v.name})", plain(v.summary), plain(v.source)] for v in VARIANTS.values()),
    )
    return page("Variants", "the wiring table", intro, overview, *(_variant(v) for v in VARIANTS.values()))


def _variant(variant: Variant) -> str:
    ends = {"a final norm": variant.final_norm, "a norm on the embedding": variant.embedding_norm}
    extra = [f"With {' and '.join(name for name, there in ends.items() if there)}."] if any(ends.values()) else []
    extra += [f"Not in {codes(variant.not_in)}."] if variant.not_in else []
    parts = [
        f"## {variant.name}",
        plain(inspect.cleandoc(variant.wiring.__doc__ or "")),
        block("\n".join(_equations(variant)), "text"),
        " ".join(extra),
        _options(variant.name, variant.options),
        f"Source: {plain(variant.source)}.",
    ]
    return "\n\n".join(filter(None, parts))


def _equations(variant: Variant) -> list[str]:
    """The block equation with its constants, of each sublayer that the variant can be wired in."""
    kinds: dict[Sublayer, str] = {"attention": "decoder", "ffn": "decoder", "mlp": "mlp", "conv": "resnet"}
    lines = []
    for sublayer, model in kinds.items():
        few = MODELS[model].has
        if model in variant.not_in or (few is not None and variant.name not in few):
            continue
        wiring = variant.wiring(SublayerPosition(3, 6, sublayer))
        lines.append(f"{sublayer + ':':<11}{equation(wiring, sublayer == 'conv')}")
    return lines


def equation(wiring: Wiring, conv: bool = False) -> str:
    """One line, x <- ..., and what is special within f; a ResNet's block has a ReLU behind its sum, or its gate."""
    inside = "N(x)" if wiring.pre_norm else "x"
    inside = inside if wiring.pre_gain == 1 else f"{wiring.pre_gain:.3g} {inside}"
    branch = f"N(f({inside}))" if wiring.out_norm else f"f({inside})"
    gated = conv and wiring.learned_gate != "no" and wiring.out_norm
    branch = f"ReLU({branch})" if gated else branch
    if wiring.learned_gate != "no":
        branch = f"gate * {branch}"
    skip = {0.0: "", 1.0: "x + "}.get(wiring.skip, f"{wiring.skip:.3g} x + ")
    skip = "skip * x + " if wiring.learned_skip else skip
    whole = f"N({skip}{branch})" if wiring.post_norm else skip + branch
    whole = f"ReLU({whole})" if conv and not gated else whole
    return f"x <- {whole}" + "".join(f"; {text}" for text in _specials(wiring))


def _specials(wiring: Wiring) -> list[str]:
    gains = {
        "W_V": wiring.value_gain,
        "W_O": wiring.output_gain,
        "first matrix": wiring.fc1_gain,
        "last matrix": wiring.fc2_gain,
    }
    texts = [f"gate a learned {wiring.learned_gate}, {wiring.gate:g} at first"] if wiring.learned_gate != "no" else []
    texts += [f"skip a learned vector, {wiring.skip:g} at first"] if wiring.learned_skip else []
    texts += ["a norm inside f, before its last matrix"] if wiring.inner_norm else []
    texts += ["a learned scale a head"] if wiring.head_scale else []
    texts += ["one norm for all layers"] if wiring.shared_norm else []
    scaled = [f"{name} by {gain:.3g}" for name, gain in gains.items() if gain != 1]
    return texts + ([f"initial weights scaled: {', '.join(scaled)}"] if scaled else [])


def _options(name: str, options: Mapping[str, Any]) -> str:
    rows = ([code(f"{name}:{key}=..."), code(_typed(default))] for key, default in options.items())
    return table(["option", "default"], rows)


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def models_page() -> str:
    """Built-in models, norm functions and parametrizations."""
    rows = (
        [
            code(m.name),
            plain(m.summary),
            code(m.task),
            codes(sorted(m.has)) if m.has else "all",
            codes(sorted(m.lacks)) or "-",
            plain(m.source),
        ]
        for m in MODELS.values()
    )
    return page(
        "Models and norm functions",
        "the tables of models, norms and parametrizations",
        "[Built-in models and data](../guides/models-and-data.md) says more of each.",
        table(["model (`--model`)", "", "task", "variants", "settings that it lacks", "source"], rows),
        "## Norm functions",
        table(
            ["norm (`--norm`)", "N(x)", "source"], ([code(n.name), plain(n.summary), n.source] for n in NORMS.values())
        ),
        "## Parametrizations",
        table(
            ["`--parametrization`", "", "source"],
            ([code(p.name), plain(p.summary), plain(p.source)] for p in PARAMETRIZATIONS.values()),
        ),
    )


def optimizers_page() -> str:
    """Built-in optimizers."""
    intro = (
        "Each equals its reference, replica by replica; tests hold it against it. `NAME:key=value` sets an option. "
        "For others see [your own optimizer](../guides/own-optimizer.md)."
    )
    return page("Optimizers", "the table of optimizers", intro, *(_optimizer(o) for o in OPTIMIZERS.values()))


def _optimizer(optimizer: Any) -> str:
    text = plain(inspect.cleandoc(optimizer.update.__doc__ or ""))
    parts = [f"## {optimizer.name}", text, _options(optimizer.name, optimizer.options)]
    return "\n\n".join([*filter(None, parts), f"Reference: {plain(optimizer.source)}."])


def shocks_page() -> str:
    """Shocks and guards."""
    intro = (
        "What [`stresstest shock`](../guides/shock.md) does to a run, `--shock NAME:key=value`, and what might save "
        "it, `--guard NAME:key=value`. Damage is compared at the standard dose; a search tries the others."
    )
    shocks = (
        [code(s.name), plain(s.summary), _doses(s.dose), _shock_options(s), plain(s.source)] for s in SHOCKS.values()
    )
    return page(
        "Shocks and guards",
        "the tables of shocks and guards",
        intro,
        "## Shocks",
        table(["`--shock`", "", "dose: tried (standard)", "options", "source"], shocks),
        "## Guards",
        _named(GUARDS),
    )


def _doses(dose: Any) -> str:
    if dose.is_switch:
        return "on"
    tried, unit = dose.tried, dose.unit
    return f"{code(dose.name)}: {shown(tried[0])} to {shown(tried[-1])} {unit} ({shown(dose.standard)})"


def _shock_options(shock: Any) -> str:
    """Every option but the dose, the default first."""
    texts = []
    for key, default in shock.options.items():
        if key != shock.dose.name:
            words = [default, *(word for word in shock.choices.get(key, ()) if word != default)]
            texts.append(f"{key}={'|'.join(map(shown, words))}")
    return codes(texts)


def schedules_page() -> str:
    """Warm-ups and decays."""
    intro = (
        "The share of the peak LR at step t, from 1, with T steps of warm-up; of both the smaller counts. "
        "[How much warm-up it needs](../questions/warmup.md#schedules) shows them in use."
    )
    return page(
        "Schedules",
        "the tables of warm-ups and decays",
        intro,
        *(f"## {title}\n\n" + _named(entries) for title, entries in (("Warm-ups", WARMUPS), ("Decays", DECAYS))),
    )


def _named(entries: Mapping[str, Any]) -> str:
    rows = (
        [
            code(e.name),
            plain(e.summary),
            codes(f"{key}={shown(value)}" for key, value in getattr(e, "options", {}).items()),
            plain(e.source),
        ]
        for e in entries.values()
    )
    return table(["name", "", "options", "source"], rows)


def data_page() -> str:
    """Data sources by task."""
    parts = []
    for task, sources in SOURCES.items():
        rows = ([code(s.name), plain(s.summary), plain(s.source)] for s in sources.values())
        parts.append(f"## {task}\n\n" + table(["source (`--data`)", "", "from"], rows))
    return page(
        "Data sources",
        "the tables of data sources",
        "A source is written `NAME` or `NAME:FILE`. [Built-in models and data](../guides/models-and-data.md) describes "
        "them; your own model brings its own by [a `batch` function](../guides/own-model.md).",
        *parts,
    )


def exit_codes_page() -> str:
    """Exit codes."""
    rows = ([str(int(one)), _EXIT_CODES[one.name]] for one in ExitCode)
    return page("Exit codes", "the exit codes and what ends with them", table(["exit code", "meaning"], rows))


def python_page() -> str:
    """The Python API."""
    intro = (
        "[Python and pytest](../guides/python.md) shows them in use; [settings](settings.md) explains every setting "
        "and [the result](result-schema.md) every field of what they return."
    )
    return page("Python API", "signatures and docstrings", intro, *(_entry(*item) for item in exported().items()))


def _entry(name: str, value: Any) -> str:
    text = inspect.cleandoc(value.__doc__ or "")
    return "\n\n".join(filter(None, [f"## {name}", block(_signature(name, value), "python"), text]))


class _Bare:
    """An annotation that was written as text, shown without its quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _bare(annotation: Any) -> Any:
    """As a reader writes it: without quotes, the folders of modules and what checks it."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _Bare(re.sub(r"\b(?:stresstest|typing|collections|pathlib)(?:\.[a-z_]+)*\.(?=\w)", "", text))


def _signature(name: str, value: Any) -> str:
    """How it is called; one argument a line where a line cannot hold them."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parameters = [
        one if one.annotation is one.empty else one.replace(annotation=_bare(one.annotation))
        for one in signature.parameters.values()
    ]
    if signature.return_annotation is not signature.empty:
        signature = signature.replace(return_annotation=_bare(signature.return_annotation))
    signature = signature.replace(parameters=parameters)
    line = f"{name}{signature}"
    if len(line) <= 100:
        return line
    named = [index for index, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY]
    lines = [f"    {one}," for one in parameters]
    if named and not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        lines.insert(named[0], "    *,")
    tail = str(signature.replace(parameters=[])).removeprefix("()")
    return "\n".join([f"{name}(", *lines, f"){tail}"])
