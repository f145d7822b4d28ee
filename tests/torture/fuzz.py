"""Random overrides for every key: each run completes, or ends with one clear message."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import mnist_exp.config

from .forks import ROOT, TINY, Ended, Tally, folder, limited, run

PATIENCE = 20  # seconds; a run of 10^9 epochs is then asked to stop
MEMORY = 4  # gigabytes
NASTY = [
    "", " ", "null", "???", "true", "nan", "inf", "-inf", "-0", "1e400", "1e-400", "0x10", "1_000", "9" * 400,
    "[", "]", "{", "}", "[]", "{}", "[[]]", "[1,[2]]", "{a:1}", "{_target_:os.system}", "1,2", "a:b", "a=b",
    "range(1,3)", "choice(1,2)", "glob(*)", "'", '"', "\\", "~", "*", "%", "#", "/", ".", "../../etc/passwd",
    "$(touch ran)", "`touch ran`", "${oc.env:HOME}", "${seed}", "${nope}", "${resume}", "\\${seed}", "${oc.decode:1}",
    "${hydra:job.name}", "!!python/name:os.system", "é", "\U0001f4a5",
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(NASTY),
    st.integers(-3, 2000).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(width=32, allow_subnormal=False).map(str),
    st.lists(st.integers(-2, 10**6), max_size=4).map(lambda items: str(items).replace(" ", "")),
    st.lists(st.floats(0, 2, allow_subnormal=False), max_size=3).map(lambda items: str(items).replace(" ", "")),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)


def keys() -> list[str]:
    """Every key of every option, every group, and the top level's."""
    found = dict.fromkeys(mnist_exp.config.Config.__dataclass_fields__)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for path in sorted((ROOT / "conf").glob("*/*.yaml")):
            if path.parent.name in mnist_exp.config.GROUPS:
                group = OmegaConf.to_container(compose("config", [f"{path.parent.name}={path.stem}"])[path.parent.name])
                found |= dict.fromkeys(_leaves(path.parent.name, group))
    return list(found)


def _leaves(prefix: str, value: object) -> list[str]:
    if not isinstance(value, dict):
        return [prefix]
    return [prefix, *(leaf for name, child in value.items() for leaf in _leaves(f"{prefix}.{name}", child))]


def options() -> list[str]:
    """A choice for each group, so that keys of all options are reached; of the data, digits alone."""
    paths = sorted((ROOT / "conf").glob("*/*.yaml"))
    groups = {*mnist_exp.config.GROUPS} - {"data"}
    return [f"{path.parent.name}={path.stem}" for path in paths if path.parent.name in groups]


KEYS = st.deferred(lambda: st.sampled_from(keys()))  # composing each option takes seconds, so not in an import
OVERRIDES = st.lists(
    st.one_of(
        st.builds("{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), KEYS, VALUES),
        st.sampled_from(options()),
    ),
    min_size=1,
    max_size=3,
)


def is_fine(ended: Ended) -> bool:
    """Whether a run has completed, stopped when it was asked to, or failed with one message and no traceback."""
    return (ended.code in (0, 143) and "Traceback" not in ended.err + ended.out) or ended.is_one_line_error


def type_in(overrides: list[str]) -> Ended:
    """A small run with these overrides, with little memory and little time."""
    return run(*TINY, "epochs=1", "plots=false", *overrides, prepare=limited(MEMORY), limit=PATIENCE)


def fuzz(count: int) -> Tally:
    """So many commands with one to three random overrides."""
    tally = Tally("a command with one to three random overrides, for any key")

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(OVERRIDES)
    def each(overrides: list[str]) -> None:
        ended = type_in(overrides)
        tally.count(is_fine(ended), note=f"{overrides}: {ended}")
        assert tally.survived == tally.injected, overrides

    with folder():
        try:
            each()
        except AssertionError:
            print(f"  {tally.notes[-1]}", flush=True)
        tally.count(not Path("ran").exists(), note="a command was run")
    return tally
