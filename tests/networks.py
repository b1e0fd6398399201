"""Small networks of every kind that people bring, made here, and the tasks that hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.task.record import InputSpec, Task
from edgekit.verify import run_onnx


def task_of(
    model: nn.Module | onnx.ModelProto,
    example: Sequence[np.ndarray],
    *,
    names: Sequence[str] = (),
    dynamic: dict[str, dict[int, str]] | None = None,
    calls: Sequence[Sequence[np.ndarray]] | None = None,
    training: Callable[[], Any] | None = None,
    outputs: Sequence[str] = (),
) -> Task:
    """A task around a network; the loader's work, without a file."""
    if isinstance(model, onnx.ModelProto) and not names:
        weights = {tensor.name for tensor in model.graph.initializer}
        names = [value.name for value in model.graph.input if value.name not in weights]
    names = list(names) or [f"x{index}" if index else "x" for index in range(len(example))]
    axes = dynamic or {}
    specs = tuple(
        InputSpec(
            name=name,
            shape=tuple(axes.get(name, {}).get(axis, size) for axis, size in enumerate(array.shape)),
            dtype=array.dtype.name,
        )
        for name, array in zip(names, example, strict=True)
    )
    return Task(
        name="net",
        model=model.eval() if isinstance(model, nn.Module) else model,
        inputs=specs,
        output_names=tuple(outputs),
        example=tuple(example),
        calibration=tuple(tuple(call) for call in calls) if calls is not None else None,
        training=training,
        evaluate=None,
        sources_digest="0",
        notes=(),
    )


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def calls_of(task: Task, count: int = 16) -> list[dict[str, np.ndarray]]:
    """Deployed calls by input name: the calibration calls, else noise of the example's shapes."""
    names = [spec.name for spec in task.inputs]
    if task.calibration is not None:
        return [dict(zip(names, call, strict=True)) for call in task.calibration[:count]]
    return [
        {
            name: noise(*array.shape, seed=seed) if array.dtype == np.float32 else array
            for name, array in zip(names, task.example, strict=True)
        }
        for seed in range(count)
    ]


def calibrated(network: nn.Module, *shape: int) -> nn.Module:
    """The network with He weights and with batch statistics of noise, so that signals keep their size."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
    network.train()
    with torch.no_grad():
        for seed in range(4):
            network(torch.from_numpy(noise(8, *shape, seed=seed)))
    return network.eval()


def digits(size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, shuffled: images 1xsizexsize, labels; the first 400 are for tests."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    order = np.random.default_rng(0).permutation(len(labels))
    return F.interpolate(images, size=(size, size)).numpy()[order], labels[order]


def train(network: nn.Module, epochs: int, rate: float = 0.05) -> nn.Module:
    """Train on the digits that are not for tests; a second of one core an epoch, or less."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images, labels = (torch.from_numpy(array[400:]) for array in digits())
    optimiser = torch.optim.SGD(network.parameters(), rate, momentum=0.9, nesterov=True)
    network.train()
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(network(images[part]), labels[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    torch.set_num_threads(threads)
    return network.eval()


def trained_task(network: nn.Module, epochs: int = 4) -> Task:
    """The network trained on digits, with 64 calibration calls and the training data."""
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(array[400:]) for array in digits())
    calls = [(image[None],) for image in images[:64].numpy()]

    def training() -> list[tuple[Tensor, Tensor]]:
        return list(zip(images.split(64), labels.split(64), strict=True))

    return task_of(train(network, epochs), calls[0], calls=calls, training=training, outputs=["scores"])


def accuracy(graph: onnx.ModelProto) -> float:
    """Of a digits network on the digits that training never saw."""
    images, labels = digits()
    outputs = run_onnx(graph, [{"x": image[None]} for image in images[:400]])
    return float(
        np.mean([out[0].argmax() == label for out, label in zip(outputs, labels[:400], strict=True)])
    )


class TinyCnn(nn.Module):
    """A residual network with batch norms, for 1x16x16 digits."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
            nn.BatchNorm2d(2 * width),
        )
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.stem(x))
        y = F.relu(y + self.block(y))
        return self.head(y.mean((2, 3)))


class DsCnn(nn.Module):
    """Keyword spotting: depthwise separable, batch norm before and after the ReLU, 49x10 features."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, width, (10, 4), 2, (5, 1)), nn.ReLU(), nn.BatchNorm2d(width)]
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, 1, 1, groups=width), nn.BatchNorm2d(width), nn.ReLU6()]
            layers += [nn.Conv2d(width, width, 1), nn.ReLU(), nn.BatchNorm2d(width)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Recurrent(nn.Module):
    """A recurrent detector over frames of 16 features, with the last state as a second output."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(16, 32, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sequence, state = self.rnn(x)
        return self.head(sequence), state[0] if isinstance(state, tuple) else state


class Stateful(nn.Module):
    """A voice detector that is fed its own state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 16, 16, 8)
        self.cell = nn.LSTMCell(16, 16)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden, memory = self.cell(F.relu(self.conv(x[:, None])).mean(2), (state[0], state[1]))
        return torch.sigmoid(self.head(hidden)), torch.stack([hidden, memory])


class Encoder(nn.Module):
    """A text encoder: token numbers in, one embedding out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(100, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.layers(self.tokens(tokens)).mean(1), dim=1)


class Attention(nn.Module):
    """Self-attention written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, length, width))


class Vit(nn.Module):
    """A small vision transformer for 1x16x16 images."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.place = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.attentions = nn.ModuleList(Attention(width, 4) for _ in range(2))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(2)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.place
        for index, (attention, mlp) in enumerate(zip(self.attentions, self.mlps, strict=True)):
            y = y + attention(self.norms[2 * index](y))
            y = y + mlp(self.norms[2 * index + 1](y))
        return self.head(self.norms[4](y)[:, 0])


class UNet(nn.Module):
    """Segmentation: down, up by a transposed convolution, skip by concatenation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.leave = nn.Conv2d(2 * width, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        return self.leave(torch.cat([self.up(self.deep(y)), y], 1))


class PNet(nn.Module):
    """Face proposals: PReLU, pooling that rounds up, two outputs, any height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 10, 3), nn.PReLU(10), nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(10, 16, 3), nn.PReLU(16), nn.Conv2d(16, 32, 3), nn.PReLU(32),
        )  # fmt: skip
        self.face, self.box = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        return self.box(y), self.face(y).softmax(1)


class ONet(nn.Module):
    """Face landmarks: PReLU, pooling that rounds up, a flattened head, three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(16, 32, 3), nn.PReLU(32), nn.MaxPool2d(3, 2, ceil_mode=True),
        )  # fmt: skip
        self.dense, self.prelu = nn.Linear(32 * 4 * 4, 64), nn.PReLU(64)
        self.face, self.box, self.points = nn.Linear(64, 2), nn.Linear(64, 4), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.body(x).permute(0, 3, 2, 1).contiguous()
        y = self.prelu(self.dense(y.view(y.shape[0], -1)))
        return self.box(y), self.points(y), self.face(y).softmax(1)


class Tagger(nn.Module):
    """Many labels at once: a sigmoid for each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 32, 3, 2)
        )
        self.head = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.body(x).mean((2, 3))))


class Grouped(nn.Module):
    """Grouped convolutions, one layer used twice, a head with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 1, 1)
        self.grouped = nn.Conv2d(32, 32, 3, 1, 1, groups=4)
        self.shared = nn.Conv2d(32, 32, 3, 1, 1)
        self.hidden, self.norm = nn.Linear(32, 64), nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.grouped(F.relu(self.stem(x))))
        y = F.relu(self.shared(F.relu(self.shared(y)))) + y
        return self.head(F.relu(self.norm(self.hidden(y.mean((2, 3))))))
