"""Writes tests/golden/torch with PyTorch 2.14.1: python make_torch.py torch

Values count upwards, so that the tests know them. The code in TorchScript's archive is left out.
"""

import argparse
import collections
import sys
import zipfile
from pathlib import Path

import torch
from torch import nn


def counted(*shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape) / 8


def net():
    layers = collections.OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 2))
    made = nn.Sequential(layers)
    made.load_state_dict({name: counted(*value.shape).to(value.dtype) for name, value in made.state_dict().items()})
    return made


def training_state(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {
        "epoch": 3,
        "arch": "small",
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "state_dict_ema": {name: value + 1 for name, value in model.state_dict().items()},
        "args": argparse.Namespace(lr=0.1),
    }


def views():
    base = counted(4, 6)
    return {
        "transposed": base.t(),
        "slice": base[1:3, 2:5],
        "row": base[2],
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "channels_last": counted(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.ones(2)),
        **{str(dtype).removeprefix("torch."): torch.arange(3).to(dtype) for dtype in TYPES},
    }


TYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.bool,
         torch.complex64, torch.complex128)  # fmt: skip
NEW_TYPES = (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64)


def without_code(path):
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if "/code/" not in name}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def main(folder):
    folder.mkdir(exist_ok=True)
    before = {"_use_new_zipfile_serialization": False}
    model = net()
    torch.save(model.state_dict(), folder / "state_dict.pth")
    torch.save(model.state_dict(), folder / "state_dict_before_1_6.pth", **before)
    torch.save(model.state_dict(), folder / "state_dict_protocol_4.pth", pickle_protocol=4)
    torch.save(model, folder / "module.pth")
    torch.jit.script(model).save(folder / "script.pt")
    without_code(folder / "script.pt")
    torch.save(views(), folder / "views_before_1_6.pt", **before)
    new = {str(dtype).removeprefix("torch."): torch.arange(3).to(dtype) for dtype in NEW_TYPES}
    torch.save({**views(), **new}, folder / "views.pt")
    torch.save({"sparse": torch.eye(3).to_sparse(), "dense": torch.ones(1)}, folder / "sparse.pt")
    torch.save(training_state(net()), folder / "training.ckpt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
