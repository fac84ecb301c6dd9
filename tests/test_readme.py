"""What the README promises: its code runs, its commands exist, its tables are the measured ones."""

import importlib.util
import pathlib
import re

import pytest

import keras_adaptive
from keras_adaptive import cli_arguments

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def _load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("number", range(len(_blocks("python"))))
def test_python_code_runs(number, tmp_path, monkeypatch):
    """Every block runs by itself, beside the files of the repository."""
    if "export_stages(" in _blocks("python")[number]:
        for package in ("onnx", "onnxruntime"):
            pytest.importorskip(package)
    for path in ROOT.iterdir():  # what a block writes does not stay in the repository
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)

    exec(compile(_blocks("python")[number], f"README.md, block {number + 1}", "exec"), {})


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "test-jax", "test-torch"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_commands_of_the_package_are_understood():
    """Every `keras-adaptive …` that the README shows is one that the parser takes."""
    blocks = "\n".join(_blocks(""))
    lines = re.findall(r"keras-adaptive ([^`\n]+)", blocks)
    lines += re.findall(r"`keras-adaptive ([^`\n]+)`", README)

    assert lines
    for line in lines:
        if "--help" not in line:
            cli_arguments.make_parser().parse_args(line.split())


def test_scripts_exist():
    for script in re.findall(r"python (\S+\.py)", README):
        assert (ROOT / script).is_file(), script


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).is_file(), target


def test_tables_are_those_of_the_measured_files():
    """Nobody edited a figure by hand, or forgot to write the tables anew."""
    script = _load_script("readme_table")

    assert script.fill(README, script.make_results()) == README


def test_tables_show_what_the_files_hold(tmp_path):
    script = _load_script("readme_table")
    assert script.make_results(tmp_path) == script.NOT_YET

    evaluation, times = tmp_path / script.EVALUATION, tmp_path / script.TIMES
    for path in (evaluation, times):
        path.parent.mkdir(parents=True)
    evaluation.write_text(
        "exit,threshold,accuracy,mean_macs,cost_share,exit1_share,exit2_share\n"
        "1,,0.85,1e7,0.25,1,0\n,0.8,0.8912,2e7,0.5,0.6,0.4\n")
    times.write_text(
        "engine,threshold,repeats,num_pictures,backend,backend_version,cores,processor,batch_size,"
        "adaptive_p50_ms,whole_p50_ms,time_ratio,cost_share\n"
        "keras,0.8,7,512,jax,0.1,1,A chip,16,1.25,2.5,0.5,0.4\n")

    results = script.make_results(tmp_path)

    assert "| at exit 1 | 85.00% | 10.00 M | 25.0% |" in results
    assert "| **when 0.8 confident** | 89.12% | 20.00 M | 50.0% |" in results
    assert "| keras | 16 | 1.25 | 2.50 | 0.50 | 40.0% |" in results
    assert "1 core of A chip" in results

    times.write_text(
        "engine,threshold,repeats,num_pictures,backend,backend_version,cores,processor,batch_size,"
        "adaptive_p50_ms,whole_p50_ms,time_ratio,cost_share\n"
        'keras,"[0.8, 0.5]",7,64,jax,0.1,2,A chip,1,1.25,2.5,0.5,0.4\n'
        'openvino,"[0.8, 0.5]",7,512,jax,0.1,2,A chip,16,1.25,2.5,0.5,0.4\n')

    results = script.make_results(tmp_path)

    assert "at thresholds 0.8, 0.5" in results and "over 512 test pictures (fewer" in results
    assert "| openvino | 16 | 1.25 | 2.50 | 0.50 | 40.0% |" in results


def test_marks_of_the_tables_must_be_there():
    with pytest.raises(ValueError, match="needs one line"):
        _load_script("readme_table").fill("no marks", "a table")


def test_public_names_are_documented():
    """What the package hands out is named in the README or in the documentation."""
    texts = README + "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))

    missing = [name for name in keras_adaptive.__all__
               if not re.search(rf"\b{re.escape(name)}\b", texts)]
    assert not missing
