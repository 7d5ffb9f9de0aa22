"""A classifier for small images: five convolutions."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (32, 64, 128)


class Cnn(nn.Module):
    """Five convolutions of 3x3 with batch norms in three resolutions, the mean over the last map, one linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.features = nn.Sequential(
            *_block(3, first),
            nn.MaxPool2d(2),
            *_block(first, second),
            *_block(second, second),
            nn.MaxPool2d(2),
            *_block(second, third),
            *_block(third, third),
        )
        self.head: nn.Module = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of normalised images (B, 3, H, W)."""
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits

    @staticmethod
    def backbone(module: nn.Module) -> nn.Module:
        """Return the network without its head: the mean of the last map, (B, 128)."""
        assert isinstance(module, Cnn)
        module.head = nn.Identity()
        return module


def _block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
