"""The way to an endpoint: round trips and upload."""

import msgspec

# A probe moves the estimate by a third: three probes after a change, most of it is known.
STEP = 1.0 / 3.0


class Network(msgspec.Struct):
    """Round-trip time in seconds, from probes; upload rate in bytes a second, as declared."""

    rtt_s: float
    upload_bytes_per_s: float
    probed: bool = False

    def seconds(self, upload_bytes: int) -> float:
        """From the first byte sent to the first byte that could come back, were the engine immediate."""
        return self.rtt_s + upload_bytes / self.upload_bytes_per_s

    def learn_rtt(self, rtt_s: float) -> None:
        """Take in one measured round trip; the first one replaces the prior."""
        self.rtt_s += (rtt_s - self.rtt_s) * (STEP if self.probed else 1.0)
        self.probed = True
