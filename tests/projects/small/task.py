"""A small convolutional network on scikit-learn's digits, trained in about two seconds when it is loaded."""

from functools import cache

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


@cache
def digits():
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    return images, torch.tensor(labels)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


class Batches:
    """The first 1,400 digits in 14 batches."""

    def __len__(self):
        return 14

    def __iter__(self):
        images, labels = digits()
        return iter(zip(images[:1400].split(100), labels[:1400].split(100), strict=True))


@cache
def model():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(6):
        for images, labels in Batches():
            loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.set_num_threads(threads)
    return net.eval()


def example_inputs():
    return (digits()[0][:1],)


def calibration_data():
    return [(image[None],) for image in digits()[0][:64]]


def training_data():
    return Batches()


def evaluate(predict):
    images, labels = (tensor[1400:].numpy() for tensor in digits())
    return float((predict(images).argmax(1) == labels).mean())
