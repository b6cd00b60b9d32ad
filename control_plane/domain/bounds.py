"""How long leases, leashes and silences last: numbers that must fit together, in one table. All in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """``check`` says what must hold between them; a service refuses to start when it does not."""

    lease: float = 6.0
    renew_every: float = 2.0
    sweep_every: float = 1.0
    heartbeat: float = 2.0
    silence: float = 6.0
    probe: float = 2.0
    leash: float = 12.0
    leash_margin: float = 2.0
    renewal: float = 3.5
    attach: float = 2.0
    call: float = 5.0
    reconnect: float = 0.25
    acquire: float = 10.0  # a connection to the database, made or free
    stop: float = 150.0  # an executor needs up to 143: 60 of grace, 8 to interrupt and hear out, 60 for a snapshot, 15 to judge

    @property
    def lost_after(self) -> float:
        """Silence after which an attempt's process tree is gone for certain: its leash has lapsed."""
        return self.leash + self.leash_margin

    def check(self) -> Bounds:
        """Itself. Raises ``ValueError`` naming the rule that does not hold."""
        rules = {
            "lease + sweep + attach < leash <= 12": self.lease + self.sweep_every + self.attach < self.leash <= 12,
            "two renewals fit into a lease": 2 * self.renew_every < self.lease,
            "two heartbeats fit into the silence": 2 * self.heartbeat < self.silence,
            "silence + probe <= 10": self.silence + self.probe <= 10,
            # it counts from the reading it quotes, which the renewal before it brought
            "a renewal that hangs leaves time for the next": 2 * self.renew_every + 2 * self.renewal < self.leash,
            "lost_after <= 15": self.lost_after <= 15,
            "silence + probe < stop": self.silence + self.probe < self.stop,  # who does not answer is known by then
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"these bounds do not fit together: {rule}")
        return self
