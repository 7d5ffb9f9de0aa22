"""What the steps of embed and classify share: a network, and its need of memory."""

from __future__ import annotations

from cvjobs.networks.registry import Network


class NetworkStep:
    """A loaded network that takes images of one size."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @property
    def image_bytes(self) -> int:
        """See ``headroom.Sized``."""
        return int(getattr(self._network, "image_bytes", 0))
