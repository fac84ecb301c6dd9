"""Settings of a process that trains on a processor."""

import os
import sys

import pytest

from keras_adaptive import cli, process


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch):
    """Linux without an accelerator, and nothing set."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(process, "_ACCELERATORS", ())
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    for name in (*process.ALLOCATOR, "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.delenv(name, raising=False)


THREADS = {"TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"}


def test_networks_of_thin_operations_run_two_at_a_time():
    """RANet and MSDNet get threads for it; a ResNet, one operation at a time, keeps all."""
    adaptive = process.training_settings("ranet_cifar10", num_cores=2)

    assert adaptive["TF_NUM_INTRAOP_THREADS"] == "1"
    assert adaptive["TF_NUM_INTEROP_THREADS"] == "2"
    assert process.training_settings("ranet_cifar10", num_cores=8)["TF_NUM_INTRAOP_THREADS"] == "4"
    assert not THREADS & set(process.training_settings("ranet_cifar10", num_cores=1))
    assert process.training_settings("resnet20_cifar10", num_cores=2) == process.ALLOCATOR


def test_threads_are_tensorflow_s(monkeypatch):
    """Other backends get the allocator's settings only."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")

    assert process.training_settings("ranet_cifar10", num_cores=2) == process.ALLOCATOR


def test_nothing_is_set_where_it_was_not_measured(monkeypatch, tmp_path):
    """Neither on other systems, nor beside an accelerator."""
    monkeypatch.setattr(process, "_ACCELERATORS", (str(tmp_path),))
    assert process.training_settings("ranet_cifar10") == {}

    monkeypatch.setattr(process, "_ACCELERATORS", ())
    monkeypatch.setattr(sys, "platform", "win32")
    assert process.training_settings("ranet_cifar10") == {}


@pytest.mark.parametrize("recipe", ["no_such_recipe", "broken.toml"])
def test_a_recipe_that_cannot_be_read_is_left_to_training(recipe, tmp_path, monkeypatch):
    """Which says what is wrong with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("[model", encoding="utf-8")

    assert process.training_settings(recipe) == process.ALLOCATOR


def test_the_command_starts_anew_once(monkeypatch):
    """With the same arguments, and what is set already left as it is; then it trains."""
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["keras-adaptive", "train", "no_such_recipe"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "keras-adaptive", "train", "no_such_recipe"])
    monkeypatch.setenv("MALLOC_ARENA_MAX", "5")

    assert cli.main() == 1
    ((program, arguments, environment),) = started
    assert (program, arguments) == (
        sys.executable, [sys.executable, "keras-adaptive", "train", "no_such_recipe"])
    assert environment["MALLOC_ARENA_MAX"] == "5" and environment["MALLOC_MMAP_MAX_"] == "0"

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main() == 1
    assert len(started) == 1


def test_called_from_python_it_stays_in_its_process(monkeypatch):
    """`main` with arguments never replaces the program that calls it."""
    monkeypatch.setattr(os, "execve", lambda *arguments: pytest.fail("started anew"))

    assert cli.main(["train", "no_such_recipe"]) == 1
