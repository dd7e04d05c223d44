"""Settings: four layers, each value with its origin, and errors that name the place and the fix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandcli.config import Scalar, read_text, resolve, template
from sandcli.errors import UsageError
from sandcli.settings import Settings, worker_count
from sandcli.tables import LONGEST


def written(folder: Path, text: str) -> Path:
    (folder / "sand.toml").write_text(text, encoding="utf-8")
    return folder


def error(folder: Path, text: str = "", **layers: dict[str, str]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        resolve(written(folder, text), layers.get("environment", {}), layers.get("flags", {}))
    return caught.value


def test_defaults_hold_without_a_file(tmp_path: Path) -> None:
    resolved = resolve(tmp_path, {}, {})
    assert resolved.settings == Settings()
    assert set(resolved.origins.values()) == {"default"}


def test_defaults_are_those_of_the_paper() -> None:
    defaults = Settings()
    assert (defaults.sample.n, defaults.sample.temperature, defaults.rollout.temperature) == (5, 1.0, 1.0)
    assert (defaults.train.learning_rate, defaults.train.batch_size, defaults.train.epochs) == (1e-5, 64, 3)


def test_each_layer_overrides_the_one_below(tmp_path: Path) -> None:
    folder = written(tmp_path, "[sample]\nn = 2\ntemperature = 0.5\n[run]\nseed = 2\nworkers = 2\n")
    environment = {"SAND_SAMPLE_N": "3", "SAND_RUN_SEED": "3", "HOME": "x"}
    resolved = resolve(folder, environment, {"sample.n": 4, "sample.temperature": None})
    found = {setting.name: (setting.value, setting.origin) for setting in resolved.listing()}
    assert found["sample.n"] == (4, "--n")
    assert found["run.seed"] == (3, "SAND_RUN_SEED")
    assert found["sample.temperature"] == (0.5, f"{folder}/sand.toml:3")
    assert found["run.workers"] == (2, f"{folder}/sand.toml:6")
    assert found["run.retries"] == (2, "default")


@pytest.mark.parametrize(
    ("text", "line", "unknown", "fix"),
    [
        ("[sample]\nn = 2\ntemprature = 1.0\n", 3, "sample.temprature", "did you mean sample.temperature?"),
        ("\n[smaple]\nn = 2\n", 3, "smaple.n", "did you mean sample.n?"),
        ("[run]\nworkers = 1\n[sample]\nworkers = 2\n", 4, "sample.workers", "did you mean run.workers?"),
        ("sede = 2\n", 1, "sede", "did you mean run.seed?"),
        ("[y]\nqqqq = 1\n", 2, "y.qqqq", "`sand config` lists all settings"),
    ],
)
def test_unknown_key_is_an_error_with_place_and_suggestion(
    tmp_path: Path, text: str, line: int, unknown: str, fix: str
) -> None:
    caught = error(tmp_path, text)
    assert caught.what == f"{tmp_path}/sand.toml:{line}: unknown setting {unknown}"
    assert caught.fix == fix


def test_unknown_table_without_keys_is_an_error(tmp_path: Path) -> None:
    assert "unknown setting smaple" in error(tmp_path, "[smaple]\n").what


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('[sample]\nn = "many"\n', "sample.n"),
        ("[sample]\nn = 0\n", "sample.n"),
        ("[sample]\nn = 2.5\n", "sample.n"),
        ('[eval]\nsplits = "seen"\n', "eval.splits"),
        ("[run]\ntimeout = true\n", "run.timeout"),
        ('[collect]\nthoughts = "some"\n', "collect.thoughts"),
        ('[engine]\nkind = "vlm"\n', "engine.kind"),
    ],
)
def test_wrong_type_is_an_error_with_place_and_meaning(tmp_path: Path, text: str, name: str) -> None:
    caught = error(tmp_path, text)
    assert caught.what.startswith(f"{tmp_path}/sand.toml:2: {name} = ")
    assert "it means: " in caught.fix
    assert caught.fix.startswith("one of ") == (name in ("collect.thoughts", "engine.kind"))


def test_broken_toml_is_an_error_with_its_line(tmp_path: Path) -> None:
    caught = error(tmp_path, "[sample]\nn = \n")
    assert caught.what.startswith(f"{tmp_path}/sand.toml: not valid TOML: ")
    assert "line 2" in caught.what


def test_unknown_variable_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    caught = error(tmp_path, environment={"SAND_SAMPEL_N": "3"})
    assert caught.what == "unknown environment variable SAND_SAMPEL_N"
    assert caught.fix == "did you mean SAND_SAMPLE_N?"


def test_variable_of_a_wrong_type_is_named(tmp_path: Path) -> None:
    assert error(tmp_path, environment={"SAND_SAMPLE_N": "three"}).what.startswith("SAND_SAMPLE_N: sample.n = 'three'")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("sample.n", "3", 3),
        ("run.timeout", "2.5", 2.5),
        ("run.timeout", "2", 2.0),
        ("env.tasks", "boil, melt", ["boil", "melt"]),
        ("env.tasks", "all", ["all"]),
        ("env.tasks", '["boil", "a, b"]', ["boil", "a, b"]),
        ("env.tasks", " ['boil',]", ["boil"]),
        ("env.tasks", "[]", []),
        ("env.name", "3", "3"),
    ],
)
def test_text_becomes_a_value_of_the_settings_type(tmp_path: Path, name: str, text: str, value: Scalar) -> None:
    assert read_text(name, text, "--set") == value
    variable = f"SAND_{name.replace('.', '_').upper()}"
    table, key = name.split(".")
    assert getattr(getattr(resolve(tmp_path, {variable: text}, {}).settings, table), key) == value


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("sample.n", "three", "Expected `int`"),
        ("sample.n", "0", ">= 1"),
        ("train.learning_rate", "-1", "> 0"),
        ("env.tasks", '["boil"', "not a list of TOML: Unclosed array"),
        ("env.tasks", '["boil", 2]', "Expected `str`, got `int`"),
        ("run.seed", str(2**70), "= 1180591620717411303424: Expected a number of at most 64 bits"),
    ],
)
def test_text_that_is_not_a_value_is_refused_with_its_reason(name: str, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        read_text(name, text, f"--set {name}={text}")
    assert caught.value.what.startswith(f"--set {name}={text}: {name} = ")


def test_new_file_sets_the_given_values_and_shows_the_rest_as_comments(tmp_path: Path) -> None:
    text = template({"sample.n": 3})
    assert "\nn = 3  # turns sampled at every expert step (paper: 5)\n" in text
    assert "\n# temperature = 1.0  # paper: 1.0\n" in text
    resolved = resolve(written(tmp_path, text), {}, {})
    assert [name for name, origin in resolved.origins.items() if origin != "default"] == ["sample.n"]


def test_comments_of_a_new_file_hold_the_defaults(tmp_path: Path) -> None:
    uncommented = [
        line.removeprefix("# ") if " = " in line and "`" not in line.split("=")[0] else line
        for line in template({}).splitlines()[1:]
    ]
    resolved = resolve(written(tmp_path, "\n".join(uncommented)), {}, {})
    assert resolved.settings == Settings()
    assert "default" not in resolved.origins.values()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "run.seed": st.integers(-(2**63), 2**63 - 1),
            "run.timeout": st.floats(1e-6, LONGEST),
            "model.policy": st.text(),
            "env.tasks": st.lists(st.text()),
            "train.too_long": st.sampled_from(["drop", "cut"]),
            "train.learning_rate": st.floats(1e-12, 1.0),
        },
    )
)
def test_values_in_a_new_file_are_read_back(tmp_path: Path, values: dict[str, Scalar]) -> None:
    found = resolve(written(tmp_path, template(values)), {}, {}).listing()
    assert {item.name: item.value for item in found if item.origin != "default"} == values


def test_a_delete_character_is_read_back(tmp_path: Path) -> None:
    found = resolve(written(tmp_path, template({"model.base": "a\x7fb"})), {}, {})
    assert found.settings.model.base == "a\x7fb"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("sample.temperature", float("inf"), "Expected a finite number"),
        ("rollout.temperature", float("nan"), "Expected"),
        ("run.timeout", float("inf"), "<= 1000000.0"),
        ("run.timeout", 1e10, "<= 1000000.0"),
        ("engine.patience", 1e300, "<= 1000000.0"),
        ("run.seed", 2**63, "Expected a number of at most 64 bits"),
        ("run.seed", 10**5000, "Expected a number of at most 64 bits"),
        ("model.base", "a\udcffb", "Expected text that UTF-8 can hold"),
        ("method.without", "\ud800", "Expected text that UTF-8 can hold"),
        ("env.tasks", ["boil", "\ud800"], "Expected text that UTF-8 can hold"),
    ],
    ids=range(10),
)
def test_a_value_that_no_file_can_hold_is_refused(tmp_path: Path, name: str, value: Scalar, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path, {}, {name: value})
    assert f"{name} = " in caught.value.what and why in caught.value.what
    assert len(caught.value.what) < 250


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[run]\nseed = " + "9" * 5000 + "\n", "4300 digits"),
        ("[run]\nseed = " + "9" * 4000 + "\n", "at most 64 bits"),
        ("[env]\ntasks = " + "[" * 20000 + "\n", "not valid TOML"),
        ('[run]\n"seed.x" = 1\n', "unknown setting run.seed.x"),
    ],
    ids=["thousands of digits", "many digits", "nesting", "dotted key"],
)
def test_a_file_that_python_cannot_read_is_an_error(tmp_path: Path, text: str, why: str) -> None:
    caught = error(tmp_path, text)
    assert why in caught.what
    assert len(caught.what) < 300


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert resolve(written(tmp_path, "\ufeff[run]\nseed = 3\n"), {}, {}).origins["run.seed"].endswith(":2")


def test_line_numbers_are_those_of_an_editor(tmp_path: Path) -> None:
    caught = error(tmp_path, '[model]\nbase = "a\u2028b"\npolicy = 3\n')
    assert caught.what.startswith(f"{tmp_path}/sand.toml:3: model.policy")


@pytest.mark.parametrize(
    "url",
    ["http://user:hidden@h", "https://user:hid@hidden@h/v1", "user:hidden@h", "http://user:hidden/@h", "x//u:hidden@h"],
)
@pytest.mark.parametrize("form", [lambda url: url, lambda url: [3, url], lambda url: [url, "http://v:hidden@h", 3]])
def test_an_error_about_urls_holds_no_password(tmp_path: Path, url: str, form: Callable[[str], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path, {}, {"engine.urls": form(url)})
    assert "hid" not in caught.value.what
    assert "***@h" in caught.value.what
    with pytest.raises(UsageError, match="not a list of TOML") as caught:
        read_text("engine.urls", f'["{url}"', "--set")
    assert "hid" not in caught.value.what


def test_every_setting_has_a_meaning(tmp_path: Path) -> None:
    assert [item.name for item in resolve(tmp_path, {}, {}).listing() if not item.meaning] == []


def test_worker_count_is_the_number_of_usable_cores_but_at_most_32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for cores, workers in ((3, 3), (64, 32)):
        monkeypatch.setattr("os.sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        assert worker_count(Settings()) == workers
    assert worker_count(resolve(tmp_path, {}, {"run.workers": 40}).settings) == 40


@pytest.mark.parametrize("table", ["eval", "explore"])
def test_several_greedy_episodes_of_a_task_are_refused(tmp_path: Path, table: str) -> None:
    with pytest.raises(UsageError, match=rf"{table}\.n is 2 and {table}\.temperature 0: all 2 episodes") as caught:
        resolve(tmp_path, {}, {f"{table}.n": 2, f"{table}.temperature": 0.0})
    assert caught.value.fix == f"set {table}.n to 1, or {table}.temperature above 0, such as 0.7"
    resolve(tmp_path, {}, {f"{table}.n": 1, f"{table}.temperature": 0.0})
