"""Of each broken input the fault is named, and the code of its remedy repairs it, run as it is printed."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import terramind_xr
from broken import FAULTS, NUMBERS
from terramind_xr.errors import InputError, TerramindError, TerramindWarning
from terramind_xr.scene import Scene

PAGE = Path(__file__).parents[1] / "docs" / "checks.md"
OPTION = r"(?:inputs|offset|mask|shape)="
START = re.compile(rf"(?<![\w.])(?:ds\[|ds = |mask = |\[?for name in |\[ds\[|(?:mask|tokens)\.|{OPTION})")


def parses(text):
    if text[-1] in ", .;" or re.search(rf" (?:or|else|and) {OPTION}", text):
        return False
    try:
        mode = "eval" if text.startswith(("mask.", "tokens.")) else "exec"
        compile(f"call({text})" if re.match(OPTION, text) else text, "remedy", mode)
    except SyntaxError:
        return False
    return True


def codes(text):
    """All code after the first sentence: from where it starts, as much as Python takes."""
    text, found, at = re.sub(r" \[[a-z.]+\]$", "", text), [], 0
    text = text.partition(". ")[2]
    while start := START.search(text, at):
        rest = re.split(r"\. (?=[A-Z(])", text[start.start() :])[0]
        ends = (end for end in range(len(rest), 0, -1) if re.match(r"$|[\s,;:)]|\.(\s|$)", rest[end:]))
        code = next((rest[:end] for end in ends if parses(rest[:end])), "").rstrip(" ,.;")
        is_whole = not re.fullmatch(r"ds\[[^]]*\]", code) and not re.match(r"\s*=", rest[len(code) :])
        at = start.start() + max(len(code), 1)
        found += [code] if code and is_whole else []
    return found


def executed(code, scope):
    """What the user has, and the options of the call, after the code was run."""
    scope = {key: value.copy(deep=True) if hasattr(value, "copy") else value for key, value in scope.items()}
    known = {"xr": xr, "np": np, "terramind_xr": terramind_xr}
    if re.match(OPTION, code):
        return scope, eval(f"dict({code})", known | scope)
    if code.startswith(("mask.", "tokens.")):
        name = code.partition(".")[0]
        return scope | {name: eval(code, known | scope)}, {}
    space = known | scope
    exec(code, space)
    return {key: space[key] for key in (*scope, "ds") if key in space}, {}


def scope_of(made):
    if isinstance(made, dict):
        return made
    return {"tokens" if "terramind_tokens" in made.attrs else "ds": made}


def calls(fault, scope, options):
    """A call, up to where it would run the model."""
    options = dict(fault.call or {}) | options
    if "mask" in scope and options.get("mask", 0) is None:
        options["mask"] = scope["mask"]
    Scene.of(scope["ds"], options.pop("inputs", fault.modality), **options)


def messages(fault, scope, options):
    """All that is said, with its class."""
    if options.keys() == {"shape"}:  # of tokens: said to the verb that decodes them
        terramind_xr.detokenize(scope["tokens"], model="demo", **options)
        return []
    if fault.kind == "values.infinite":
        return heard(lambda: scope["ds"].terramind.generate("LULC", model="demo").compute(scheduler="sync"))
    if options or fault.call is not None:
        return heard(lambda: calls(fault, scope, options))
    obj = next(scope[name] for name in ("ds", "tokens", "tree") if name in scope)
    report = terramind_xr.validate(obj, fault.modality, sample=fault.sample)
    return [(InputError, str(each)) for each in report.errors] + [
        (TerramindWarning, str(each)) for each in report.warnings
    ]


def heard(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except InputError as error:
            raised = [(InputError, text) for text in error.faults]
        except TerramindError as error:
            raised = [(type(error), str(error))]
        else:
            raised = []
    return raised + [
        (TerramindWarning, str(each.message)) for each in caught if each.category is TerramindWarning
    ]


def of_kind(fault, said):
    if fault.kind:
        return [(kind, text) for kind, text in said if text.endswith(f"[{fault.kind}]")]
    return [(kind, text) for kind, text in said if kind is not TerramindWarning]


NAMES = [f"{fault.kind or 'call'}: {fault.title}".replace(" ", "-") for fault in FAULTS]


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_fault_is_named_and_its_remedy_repairs_it(fault):
    scope = scope_of(fault.make())
    found = of_kind(fault, messages(fault, scope, {}))
    assert len(found) == 1, found
    kind, text = found[0]
    assert issubclass(kind, TerramindWarning if fault.warns else TerramindError)
    assert fault.variable in text
    assert fault.remedy in text
    for placeholder, known in fault.fill.items():
        text = text.replace(placeholder, known)
    lines = codes(text)
    assert len(lines) == fault.codes, lines
    for number, line in enumerate(lines):
        after, options = executed(line, scope)
        if fault.pick in (None, number):
            assert of_kind(fault, messages(fault, after, options)) == [], line


CHECKED = [fault for fault in NUMBERS if fault.call is None]


@pytest.mark.parametrize("fault", CHECKED, ids=lambda fault: f"{fault.kind}-{fault.title}".replace(" ", "-"))
def test_a_call_says_what_the_report_says(fault):
    """As an InputError, or as a TerramindWarning."""
    scope = scope_of(fault.make())
    said = of_kind(fault, messages(fault, scope, {}))
    assert set(said) <= set(heard(lambda: calls(fault, scope, {})))


def test_there_are_a_hundred_and_each_kind_of_the_page_is_among_them():
    assert len(FAULTS) >= 100
    assert len(set(NAMES)) == len(NAMES)
    listed = set(re.findall(r"\{ #([a-z.]+) \}", PAGE.read_text("utf-8")))
    # Those of STAC items and of stackstac's coordinates are in test_sources, of two maps in test_evaluation.
    listed = {kind for kind in listed if not kind.startswith("items.")} - {"grid.corners", "grid.other"}
    assert listed == {fault.kind for fault in FAULTS} - {""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a: b. Say it: ds["a"].attrs["u"] = "1" (or not).', ['ds["a"].attrs["u"] = "1"']),
        ("a: b. Say offset=0 or offset=1000.", ["offset=0", "offset=1000"]),
        ("a: b. First: ds = xr.decode_cf(ds), or read it.", ["ds = xr.decode_cf(ds)"]),
        ('a: b. Say which: inputs={"a": {"b": "c"}} or inputs={"d": "e"}.',
         ['inputs={"a": {"b": "c"}}', 'inputs={"d": "e"}']),
        ('a: b. for name in ["a"]: ds[name].attrs["u"] = 1', ['for name in ["a"]: ds[name].attrs["u"] = 1']),
        ("a: b. ds = ds.f([…])", []),
    ],
)  # fmt: skip
def test_code_is_read_out_of_prose(text, expected):
    assert codes(text) == expected
