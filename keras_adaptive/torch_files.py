"""Files that PyTorch wrote, as arrays by name. Nothing in them is executed."""

import os
import re


def read_state(path):
    """Read a state dict.

    Args:
        path: path of a file: a state dict, or a dict with one under `state_dict`.

    Returns:
        Dict of names to arrays.

    Raises:
        ImportError: If PyTorch is not installed.
        ValueError: If the file holds more than tensors, numbers, text and containers of them, or
            no state dict, or a tensor that `to_array` refuses.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "Checkpoints are read with PyTorch: `pip install torch`. The network that comes of "
            "them does not need it."
        ) from error
    name = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {name!r}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: the file may hold anything
        raise ValueError(_why_not(name, str(error) or type(error).__name__)) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
            isinstance(value, torch.Tensor) for value in state.values()) or not state:
        raise ValueError(f"{name!r} holds no state dict: neither itself nor under 'state_dict'.")
    return {key: to_array(key, value) for key, value in state.items()}


def to_array(name, tensor):
    """Return a tensor of PyTorch as an array; bfloat16, which NumPy lacks, as float32.

    Raises:
        ValueError: If the tensor is sparse or quantised.
    """
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        kind = "quantised" if tensor.is_quantized else f"sparse ({tensor.layout})"
        cure = "dequantize" if tensor.is_quantized else "to_dense"
        raise ValueError(f"Weights are dense tensors. {name!r} is {kind}: save its `.{cure}()`.")
    tensor = tensor.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _why_not(name, reason):
    """Return the message for a file that PyTorch refuses, whose own is long and coloured."""
    refused = re.search(r"GLOBAL (\S+)", reason)
    if not refused:
        reason = re.sub(r"\x1b\[[0-9;]*m", "", reason).split("WeightsUnpickler error:")[-1]
        return f"{name!r} is no checkpoint of tensors: {reason.strip().splitlines()[0]}"
    return (
        f"{name!r} holds more than tensors, numbers and text: {refused[1]}, too. Loading it could "
        "run code, so that nothing of the file was loaded. If you trust the file, save the state "
        "dict by itself, where the program that wrote the file runs: `checkpoint = "
        f"torch.load({name!r}, weights_only=False)`, "
        "`torch.save(checkpoint[\"state_dict\"], \"weights.pth\")`."
    )
