"""Engines: what runs a stage and keeps the survivors' tensors. One file per way of running."""
