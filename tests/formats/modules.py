"""Small PyTorch modules with real weights, each with a way in which its exported graph can be wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Recurrent(nn.Module):
    """LSTM over a sequence of any length, then its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LSTM(3, 8, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.inner(x)[0][:, -1])


class Several(nn.Module):
    """Two outputs, in a dict, one of them squeezed: it loses its first dimension with a single row."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": self.a(x), "value": torch.sigmoid(self.b(x)).squeeze()}


class Words(nn.Module):
    """Embedding of ids below 50."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(ids).mean(1))


class Cleaned(nn.Module):
    """A branch on the data that all rows take together, and that changes only those with gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(torch.isnan(x).any()):
            x = torch.where(torch.isnan(x), 0.5, x)
        return self.out(x)


class Conditional(nn.Module):
    """The same with torch.cond."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gaps = torch.isnan(x).any()
        return self.out(torch.cond(gaps, lambda x: torch.where(torch.isnan(x), 0.5, x), lambda x: x.clone(), (x,)))


class Mixing(nn.Module):
    """A branch on the sum of all rows: what a row is answered depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.a(x)
        return self.b(x)


class Rare(nn.Module):
    """A branch that no usual row takes."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.out(x)
        if bool((x == 12345.0).any()):
            y = torch.where((x == 12345.0).any(1, keepdim=True), y * 2, y)
        return y


class Sized(nn.Module):
    """Another way for more rows than `most` (exactly that many, for `exactly`)."""

    def __init__(self, most: int, *, exactly: bool = False) -> None:
        super().__init__()
        self.out, self.most, self.exactly = nn.Linear(4, 2), most, exactly

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        another = x.shape[0] == self.most if self.exactly else x.shape[0] > self.most
        return self.out(x) * 2 if another else self.out(x)


class Pair(nn.Module):
    """Two inputs, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(left) - self.b(right), left.sum(1)


class Residual(nn.Module):
    """Batch normalisation, a residual connection, a convolution of each channel, and parts that are joined again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.each = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 1)
        )
        self.pool = nn.MaxPool2d(2)
        self.out = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = self.pool(functional.relu(x + self.each(x)))
        left, right = x.chunk(2, dim=1)
        return torch.softmax(self.out(torch.cat([right, left], dim=1)), dim=1)


def residual(images: Any) -> nn.Module:
    """Return a `Residual` whose batch normalisation has seen these images, (N, 4, H, W)."""
    torch.manual_seed(0)
    net = Residual()
    net(torch.from_numpy(images * 3 + 1))
    return net.eval()


def perceptron() -> nn.Module:
    """Return a multi-layer perceptron with dropout and softmax."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3), nn.Softmax(1))


def convolutional() -> nn.Module:
    """Return a net whose batch normalisation has seen data."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    net(torch.randn(32, 1, 8, 8) * 3 + 1)
    return net


def seeded(make: Any, *arguments: Any, **options: Any) -> nn.Module:
    """Return a module in evaluation mode with weights that are always the same."""
    torch.manual_seed(0)
    return make(*arguments, **options).eval()
